//! The PROXY protocol: what a load balancer says about its client before the client's own first
//! byte.
//!
//! Versions 1 (text) and 2 (binary) of haproxy's `proxy-protocol.txt`, sections 2.1 and 2.2, on the
//! receiving side. Pure: the header is the first bytes of a connection, and [`parse`] is asked
//! again, with all of them, whenever more have arrived.
//!
//! ```
//! use heartline::framing::proxy::{Header, parse};
//!
//! let received = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nhello\n";
//! let source = "192.168.0.1:56324".parse().ok();
//! assert_eq!(parse(received), Ok(Header::Complete { len: 47, source }));
//! assert_eq!(parse(&received[..40]), Ok(Header::Incomplete));
//! assert!(parse(b"GET / HTTP/1.1").is_err());
//! ```
//!
//! A peer that may send a header may claim any address. The specification (section 2): the receiver
//! "MUST not try to guess whether the protocol header is present or not", and "SHOULD ensure proper
//! access filtering so that only trusted proxies are allowed to use this protocol". An
//! [`AccessList`](crate::access_list::AccessList) asked with the balancer's own address is such a
//! filter. How long an unfinished header may take is the caller's to bound; how many bytes it may
//! have is bounded here.
//!
//! What is skipped and not looked at: the destination, but for its form in version 1; the
//! type-length-value fields at the end of version 2, among them the CRC32c checksum, which is never
//! verified (section 2.2.3 asks that of receivers that support it).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Most bytes of a header that are accepted. The specification's own bound is 65,551, far more than
/// the addresses and any sane number of type-length-value fields need; 4 KiB leave room for a
/// certificate's name and a unique id.
pub const MAX_HEADER: usize = 4096;

/// Most bytes of a header of version 1, its CRLF included. Section 2.1: "If the CRLF sequence is
/// not found in the first 107 characters, the receiver should declare the line invalid."
pub const LONGEST_V1: usize = 107;

/// The result of parsing the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// They are the beginning of a header, which can still be completed within its bound; wait for
    /// more.
    Incomplete,
    /// They begin with a whole header.
    Complete {
        /// Bytes that belong to the header; the client's own follow.
        len: usize,
        /// Address and port of the client. `None` if the header names none (`UNKNOWN`, `LOCAL`,
        /// `UNSPEC`) or one that is not TCP: the connection keeps the address of the balancer.
        source: Option<SocketAddr>,
    },
}

/// Why the bytes are not, and cannot become, the beginning of a connection with a header. Section
/// 2.1: "Any sequence which does not exactly match the protocol must be discarded and cause the
/// receiver to abort the connection."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// Neither version begins like this.
    Signature,
    /// Version 1: the line violates the grammar, or cannot end within [`LONGEST_V1`] bytes.
    Line,
    /// Version 2: a version other than 2, or a command other than `LOCAL` and `PROXY`.
    Command,
    /// Version 2: an address family or a transport protocol that is not assigned.
    Family,
    /// Version 2: the length has no room for the addresses of the family.
    TooShort,
    /// Version 2: the length makes the header longer than [`MAX_HEADER`].
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyError::Signature => "the connection does not begin with a PROXY protocol header",
            ProxyError::Line => "the PROXY protocol line is malformed",
            ProxyError::Command => "the PROXY protocol header has an unknown version or command",
            ProxyError::Family => {
                "the PROXY protocol header has an unknown address family or transport"
            }
            ProxyError::TooShort => "the PROXY protocol header is too short for its addresses",
            ProxyError::TooLong => "the PROXY protocol header is too long",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Reads the header at the beginning of a connection from all `bytes` received on it so far.
///
/// Results are final: more bytes change only [`Header::Incomplete`], which is returned for fewer
/// than [`MAX_HEADER`] bytes, and only while some continuation would make a header of them. Bytes
/// that cannot become a header are an error at the first byte that shows it.
pub fn parse(bytes: &[u8]) -> Result<Header, ProxyError> {
    if agrees(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if agrees(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::Signature)
    }
}

/// Whether the bytes begin with the signature, or are the beginning of it.
fn agrees(bytes: &[u8], signature: &[u8]) -> bool {
    bytes
        .iter()
        .zip(signature)
        .all(|(byte, expected)| byte == expected)
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const TCP4: &[u8] = b"TCP4 ";
const TCP6: &[u8] = b"TCP6 ";
/// Without a space: "the rest of the line before the CRLF may be omitted by the sender, and the
/// receiver must ignore anything".
const UNKNOWN: &[u8] = b"UNKNOWN";
const CRLF: &[u8] = b"\r\n";

fn parse_v1(bytes: &[u8]) -> Result<Header, ProxyError> {
    let line = &bytes[..bytes.len().min(LONGEST_V1)];
    match line.windows(CRLF.len()).position(|pair| pair == CRLF) {
        Some(end) => Ok(Header::Complete {
            len: end + CRLF.len(),
            source: line_source(&line[..end])?,
        }),
        None => line_prefix(line),
    }
}

/// The source in a whole line, its CRLF taken off.
fn line_source(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let rest = line.strip_prefix(V1_SIGNATURE).ok_or(ProxyError::Line)?;
    if rest.starts_with(UNKNOWN) {
        return Ok(None);
    }
    let source = match rest.split_at_checked(TCP4.len()) {
        Some((TCP4, fields)) => fields_source::<Ipv4Addr>(fields),
        Some((TCP6, fields)) => fields_source::<Ipv6Addr>(fields),
        _ => None,
    };
    source.map(Some).ok_or(ProxyError::Line)
}

/// The source in the fields after the family: source address, destination address, source port,
/// destination port, one space between them.
///
/// The standard parsers of addresses are as strict as section 2.1. Beyond it they read IPv6 with
/// IPv4 at its end, which is what senders that use inet_ntop(3) write for mapped addresses.
fn fields_source<Ip: FromStr + Into<IpAddr>>(fields: &[u8]) -> Option<SocketAddr> {
    let mut fields = std::str::from_utf8(fields).ok()?.split(' ');
    let source: Ip = fields.next()?.parse().ok()?;
    let _destination: Ip = fields.next()?.parse().ok()?;
    let source_port = port(fields.next()?)?;
    let _destination_port = port(fields.next()?)?;
    fields
        .next()
        .is_none()
        .then(|| SocketAddr::new(source.into(), source_port))
}

/// "a decimal integer in the range [0..65535] inclusive. Heading zeroes are not permitted".
fn port(digits: &str) -> Option<u16> {
    // The standard parser takes a plus sign and leading zeros.
    let strict = !digits.starts_with('+') && (digits == "0" || !digits.starts_with('0'));
    if strict { digits.parse().ok() } else { None }
}

/// Judges the beginning of a line that does not hold its CRLF yet.
fn line_prefix(line: &[u8]) -> Result<Header, ProxyError> {
    let rest = line.get(V1_SIGNATURE.len()..).unwrap_or_default();
    if [TCP4, TCP6, UNKNOWN]
        .iter()
        .any(|family| family.starts_with(rest))
    {
        return Ok(Header::Incomplete);
    }
    let shortest = match line.strip_suffix(b"\r") {
        Some(whole) => line_source(whole).ok().map(|_| whole.len()),
        None => shortest_line(line),
    };
    match shortest {
        Some(len) if len + CRLF.len() <= LONGEST_V1 => Ok(Header::Incomplete),
        _ => Err(ProxyError::Line),
    }
}

/// What can end a field that was cut off, shortest first: any beginning of an address or a port has
/// an end among them.
const FIELD_ENDS: [&str; 10] = [
    "", "0", ":", ".0", "::", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0",
];
/// The shortest fields that can follow the source address, the destination address, the source port
/// and the destination port.
const FIELDS_AFTER_TCP4: [&str; 4] = [" 0.0.0.0 0 0", " 0 0", " 0", ""];
const FIELDS_AFTER_TCP6: [&str; 4] = [" :: 0 0", " 0 0", " 0", ""];

/// The length of the shortest line that begins with these bytes, CRLF not counted, if there is any.
/// It is found by trying, so that the grammar is defined once; ten lines for each read that splits
/// a header, which is rare: senders send it at once.
fn shortest_line(beginning: &[u8]) -> Option<usize> {
    if line_source(beginning).is_ok() {
        return Some(beginning.len());
    }
    let (fields, after) = match beginning
        .strip_prefix(V1_SIGNATURE)?
        .split_at_checked(TCP4.len())?
    {
        (TCP4, fields) => (fields, FIELDS_AFTER_TCP4),
        (TCP6, fields) => (fields, FIELDS_AFTER_TCP6),
        _ => return None,
    };
    let spaces = fields.iter().filter(|byte| **byte == b' ').count();
    let after = after.get(spaces)?;
    let mut lines = FIELD_ENDS
        .iter()
        .map(|end| [beginning, end.as_bytes(), after.as_bytes()].concat());
    lines
        .find(|line| line_source(line).is_ok())
        .map(|line| line.len())
}

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of what follows.
const V2_FIXED: usize = 16;
/// Version in the upper four bits, always 2; command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address family in the upper four bits, transport protocol in the lower.
const TCP_OVER_IPV4: u8 = 0x11;
const UDP_OVER_IPV4: u8 = 0x12;
const TCP_OVER_IPV6: u8 = 0x21;
const UDP_OVER_IPV6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// Each byte is judged as soon as it is there: no more is waited for once something is wrong.
fn parse_v2(bytes: &[u8]) -> Result<Header, ProxyError> {
    let rest = bytes.get(V2_SIGNATURE.len()..).unwrap_or_default();
    let Some(&command) = rest.first() else {
        return Ok(Header::Incomplete);
    };
    if !matches!(command, LOCAL | PROXY) {
        return Err(ProxyError::Command);
    }
    let Some(&family) = rest.get(1) else {
        return Ok(Header::Incomplete);
    };
    // "discard the protocol block including the family which is ignored".
    let addresses = if command == LOCAL {
        0
    } else {
        addresses_len(family)?
    };
    let Some(&high) = rest.get(2) else {
        return Ok(Header::Incomplete);
    };
    let low = rest.get(3);
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low.copied().unwrap_or(0)]));
    if len > MAX_HEADER {
        return Err(ProxyError::TooLong);
    }
    if low.is_some() && len < V2_FIXED + addresses {
        return Err(ProxyError::TooShort);
    }
    let Some(block) = bytes.get(V2_FIXED..len) else {
        return Ok(Header::Incomplete);
    };
    let source = match (command, family) {
        (PROXY, TCP_OVER_IPV4) => block_source::<4>(block),
        (PROXY, TCP_OVER_IPV6) => block_source::<16>(block),
        _ => None,
    };
    Ok(Header::Complete { len, source })
}

/// Bytes that the addresses and ports of this family and transport take. None if either is
/// `UNSPEC`: "The receiver should ignore address information". Other values "must be rejected as
/// invalid by receivers".
fn addresses_len(family: u8) -> Result<usize, ProxyError> {
    match family {
        TCP_OVER_IPV4 | UDP_OVER_IPV4 => Ok(2 * 4 + 2 * 2),
        TCP_OVER_IPV6 | UDP_OVER_IPV6 => Ok(2 * 16 + 2 * 2),
        UNIX_STREAM | UNIX_DATAGRAM => Ok(2 * 108),
        _ if family >> 4 <= 3 && family & 0x0f <= 2 => Ok(0),
        _ => Err(ProxyError::Family),
    }
}

/// The source in a block of source address, destination address, source port, destination port.
/// `None` if it is too short for them.
fn block_source<const N: usize>(block: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let (ip, rest) = block.split_first_chunk::<N>()?;
    let (_destination, ports) = rest.split_first_chunk::<N>()?;
    let port = ports.first_chunk()?;
    Some(SocketAddr::new(
        IpAddr::from(*ip),
        u16::from_be_bytes(*port),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Header::{Complete, Incomplete};
    use proptest::prelude::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address with a port")
    }

    fn encode_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        format!(
            "PROXY {family} {from} {to} {} {}\r\n",
            source.port(),
            destination.port()
        )
        .into_bytes()
    }

    fn encode_v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).expect("fits the length");
        [V2_SIGNATURE, &[command, family], &len.to_be_bytes(), block].concat()
    }

    fn encode_v2_proxy(source: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [
            source.port().to_be_bytes(),
            destination.port().to_be_bytes(),
        ]
        .concat();
        let block = [
            &octets(source.ip()),
            &octets(destination.ip()),
            &ports[..],
            tlvs,
        ]
        .concat();
        encode_v2(
            PROXY,
            if source.is_ipv4() {
                TCP_OVER_IPV4
            } else {
                TCP_OVER_IPV6
            },
            &block,
        )
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).expect("fits the length");
        [&[kind], &len.to_be_bytes()[..], value].concat()
    }

    /// Checks the header alone, cut anywhere, and with more behind it.
    fn check(header: &[u8], source: Option<SocketAddr>) {
        for cut in 0..header.len() {
            assert_eq!(
                parse(&header[..cut]),
                Ok(Incomplete),
                "{cut} of {:?}",
                header.escape_ascii().to_string()
            );
        }
        for behind in [&b""[..], b"\r\n", b"ping\n", b"PROXY UNKNOWN\r\n"] {
            let bytes = [header, behind].concat();
            assert_eq!(
                parse(&bytes),
                Ok(Complete {
                    len: header.len(),
                    source
                }),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    fn check_line(line: &str, source: Option<&str>) {
        check(format!("{line}\r\n").as_bytes(), source.map(addr));
    }

    /// Checks that the bytes are refused, and not before the last of them.
    fn check_refused(bytes: &[u8], error: ProxyError) {
        let shown = bytes.escape_ascii().to_string();
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(Incomplete), "{shown}");
        assert_eq!(parse(bytes), Err(error), "{shown}");
        assert_eq!(parse(&[bytes, b"more"].concat()), Err(error), "{shown}");
    }

    #[test]
    fn proxy_v1_examples_of_the_specification() {
        check_line(
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443",
            Some("192.168.0.1:56324"),
        );
        check_line(
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
            Some("255.255.255.255:65535"),
        );
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        check_line(
            &format!("PROXY TCP6 {longest} {longest} 65535 65535"),
            Some(&format!("[{longest}]:65535")),
        );
        check_line("PROXY UNKNOWN", None);
        check_line(
            &format!("PROXY UNKNOWN {longest} {longest} 65535 65535"),
            None,
        );
    }

    #[test]
    fn proxy_v1_accepts_all_address_spellings() {
        check_line("PROXY TCP4 0.0.0.0 0.0.0.0 0 0", Some("0.0.0.0:0"));
        check_line("PROXY TCP6 :: ::1 0 1", Some("[::]:0"));
        check_line("PROXY TCP6 1:: 1:2:3:4:5:6:7:: 10 20", Some("[1::]:10"));
        check_line(
            "PROXY TCP6 ::2:3:4:5:6:7:8 1::8 10 20",
            Some("[0:2:3:4:5:6:7:8]:10"),
        );
        check_line(
            "PROXY TCP6 2001:DB8:0:0::00aF 0001:2:3:4:5:6:7:8 10 20",
            Some("[2001:db8::af]:10"),
        );
        check_line(
            "PROXY TCP6 ::ffff:192.0.2.7 1:2:3:4:5:6:100.20.3.0 10 20",
            Some("[::ffff:192.0.2.7]:10"),
        );
    }

    #[test]
    fn proxy_v1_unknown_ignores_the_rest_of_the_line() {
        check_line("PROXY UNKNOWN  anything \r \n \u{e9}\0 at all", None);
        check_line("PROXY UNKNOWN\r", None);
        check_line(&format!("PROXY UNKNOWN{}", "x".repeat(107 - 15)), None);
    }

    #[test]
    fn proxy_v1_header_is_rejected_at_its_first_wrong_byte() {
        for bad in [
            "PROXY  ",
            "PROXY T1",
            "PROXY \r",
            "PROXY TCP5",
            "PROXY TCP4  ",
            "PROXY UNKNOWM",
            "PROXY t",
            "PROXY TCP4 :",
            "PROXY TCP4 256",
            "PROXY TCP4 01",
            "PROXY TCP4 1..",
            "PROXY TCP4 1.2.3 ",
            "PROXY TCP4 1.2.3.4.",
            "PROXY TCP4 1.2.3.4  ",
            "PROXY TCP4 1.2.3.4 a",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +",
            "PROXY TCP4 1.2.3.4 5.6.7.8  ",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
            "PROXY TCP6 1.",
            "PROXY TCP6 g",
            "PROXY TCP6 12345",
            "PROXY TCP6 :::",
            "PROXY TCP6 :1",
            "PROXY TCP6 1::2::",
            "PROXY TCP6 1:2:3:4:5:6:7:8:",
            "PROXY TCP6 1:2:3:4:5:6:7:1.",
            "PROXY TCP6 1:2:3:4:5:6:7 ",
            "PROXY TCP6 fe80::1%",
        ] {
            check_refused(bad.as_bytes(), ProxyError::Line);
        }
        check_refused(b"PROXY TCP4 1.2.3.4 \xff", ProxyError::Line);
    }

    #[test]
    fn proxy_v1_header_has_at_most_107_bytes() {
        let unknown = |len: usize| [b"PROXY UNKNOWN", "x".repeat(len - 13).as_bytes()].concat();
        check_refused(&unknown(106), ProxyError::Line);
        assert_eq!(
            parse(&[&unknown(106)[..], CRLF].concat()),
            Err(ProxyError::Line)
        );
        check_refused(&[&unknown(105)[..], b"\rx"].concat(), ProxyError::Line);
        // 45 characters, which the standard parser takes; two of them leave no room for two ports.
        let long = "0000:0000:0000:0000:0000:ffff:255.255.255.255";
        check_refused(
            format!("PROXY TCP6 {long} {long}").as_bytes(),
            ProxyError::Line,
        );
        check_line(
            &format!("PROXY TCP6 {long} {} 0 0", &long[..44]),
            Some("[::ffff:255.255.255.255]:0"),
        );
    }

    #[test]
    fn wrong_first_bytes_are_rejected_at_once() {
        for bad in [
            &b"G"[..],
            b"p",
            b"PROXYT",
            b"PRI",
            b"\n",
            b"\r\n\r\n\r",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\0",
            b"\x16",
        ] {
            check_refused(bad, ProxyError::Signature);
        }
    }

    #[test]
    fn proxy_v2_address_families() {
        let tcp4 = [10, 1, 2, 3, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb];
        check(
            &encode_v2(PROXY, TCP_OVER_IPV4, &tcp4),
            Some(addr("10.1.2.3:56324")),
        );
        check(&encode_v2(PROXY, UDP_OVER_IPV4, &tcp4), None);
        check(
            &encode_v2_proxy(addr("[2001:db8::7]:1"), addr("[::1]:2"), b""),
            Some(addr("[2001:db8::7]:1")),
        );
        check(&encode_v2(PROXY, UDP_OVER_IPV6, &[7; 36]), None);
        check(&encode_v2(PROXY, UNIX_STREAM, &[b'/'; 216]), None);
        check(&encode_v2(PROXY, UNIX_DATAGRAM, &[b'/'; 216]), None);
        for unspec in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
            check(&encode_v2(PROXY, unspec, b""), None);
            check(&encode_v2(PROXY, unspec, &tcp4), None);
        }
    }

    #[test]
    fn proxy_v2_local_names_no_source() {
        for family in [0x00, TCP_OVER_IPV4, TCP_OVER_IPV6, UNIX_STREAM, 0xff] {
            check(&encode_v2(LOCAL, family, b""), None);
            check(&encode_v2(LOCAL, family, &[9; 40]), None);
        }
    }

    #[test]
    fn type_length_values_belong_to_the_header() {
        let (source, destination) = (addr("192.0.2.7:4000"), addr("192.0.2.1:443"));
        let checksum_that_is_wrong = tlv(0x03, &[0; 4]);
        let tlvs = [
            tlv(0x02, b"example.com"),
            checksum_that_is_wrong,
            tlv(0x04, b""),
        ]
        .concat();
        check(&encode_v2_proxy(source, destination, &tlvs), Some(source));
        let largest = MAX_HEADER - V2_FIXED - 12 - 3;
        check(
            &encode_v2_proxy(source, destination, &tlv(0x04, &vec![0; largest])),
            Some(source),
        );
    }

    #[test]
    fn binary_header_is_rejected_at_its_first_wrong_byte() {
        for (rest, error) in [
            (&[0x11][..], ProxyError::Command),
            (&[0x22], ProxyError::Command),
            (&[PROXY, 0x13], ProxyError::Family),
            (&[PROXY, 0x41], ProxyError::Family),
            (&[PROXY, TCP_OVER_IPV4, 0, 11], ProxyError::TooShort),
            (&[PROXY, TCP_OVER_IPV6, 0, 35], ProxyError::TooShort),
            (&[PROXY, UDP_OVER_IPV4, 0, 0], ProxyError::TooShort),
            (&[PROXY, UNIX_STREAM, 0, 215], ProxyError::TooShort),
            (&[PROXY, TCP_OVER_IPV4, 0x10], ProxyError::TooLong),
            (&[PROXY, TCP_OVER_IPV4, 0x0f, 0xf1], ProxyError::TooLong),
            (&[LOCAL, 0, 0xff], ProxyError::TooLong),
        ] {
            check_refused(&[V2_SIGNATURE, rest].concat(), error);
        }
    }

    fn any_pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<[(Ipv4Addr, u16); 2]>().prop_map(|pair| pair.map(SocketAddr::from));
        let v6 = any::<[([u16; 8], u16); 2]>()
            .prop_map(|pair| pair.map(|(ip, port)| SocketAddr::from((ip, port))));
        // Zeros in groups are what makes the text of IPv6 addresses interesting.
        let sparse = any::<[(u8, u16); 2]>().prop_map(|pair| {
            pair.map(|(bit, port)| {
                SocketAddr::from((
                    Ipv6Addr::from_bits((1 << (bit % 128)) | (0xff << (bit / 2))),
                    port,
                ))
            })
        });
        prop_oneof![v4, v6, sparse].prop_map(|[source, destination]| (source, destination))
    }

    /// Bytes that get far into the parser: the pieces of headers in any order.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::sample::select(vec![
            "PROXY ", "TCP4 ", "TCP6 ", "UNKNOWN", "1", "0", "255", "65535", "ff", ".", ":", "::",
            " ", "\r", "\r\n",
        ]);
        let texts =
            prop::collection::vec(text, 0..40).prop_map(|pieces| pieces.concat().into_bytes());
        let binary = prop::collection::vec(
            prop_oneof![0u8..4, Just(0x11), Just(0x20), Just(0x21), any::<u8>()],
            0..300,
        );
        let beginnings = prop::sample::select(vec![
            &b""[..],
            b"PROXY ",
            b"PROXY TCP4 ",
            b"PROXY TCP6 ",
            b"PROXY UNKNOWN",
            V2_SIGNATURE,
        ]);
        (beginnings, prop_oneof![texts, binary])
            .prop_map(|(beginning, rest)| [beginning, &rest].concat())
    }

    /// Appends accepted byte after byte, the first one from `from` on each time, until the header
    /// is complete.
    fn grow(bytes: &mut Vec<u8>, from: u8) {
        while parse(bytes) == Ok(Incomplete) {
            assert!(bytes.len() < MAX_HEADER);
            let next = (0..=255)
                .map(|offset| from.wrapping_add(offset))
                .find(|next| parse(&[&bytes[..], &[*next]].concat()).is_ok());
            bytes.push(next.expect("something can follow what is incomplete"));
        }
    }

    proptest! {
        #[test]
        fn proxy_source_round_trips_in_both_versions(
            (source, destination) in any_pair(),
            tlvs in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            check(&encode_v1(source, destination), Some(source));
            check(&encode_v2_proxy(source, destination, &tlvs), Some(source));
        }

        #[test]
        fn verdicts_are_final_and_waiting_is_bounded(bytes in any_bytes()) {
            let mut verdict = Ok(Incomplete);
            for end in 0..=bytes.len() {
                let next = parse(&bytes[..end]);
                if verdict == Ok(Incomplete) {
                    verdict = next;
                    let bound = if bytes.first() == Some(&b'P') { LONGEST_V1 } else { MAX_HEADER };
                    prop_assert!(next != Ok(Incomplete) || end < bound);
                }
                prop_assert_eq!(next, verdict);
                if let Ok(Complete { len, .. }) = next {
                    prop_assert!(len <= end);
                }
            }
        }

        #[test]
        fn prefix_of_a_proxy_header_is_incomplete(
            bytes in any_bytes(),
            end in any::<prop::sample::Index>(),
            from in any::<u8>(),
        ) {
            let mut bytes = bytes[..end.index(bytes.len() + 1)].to_vec();
            if parse(&bytes) == Ok(Incomplete) {
                grow(&mut bytes, from);
                let complete = matches!(parse(&bytes), Ok(Complete { len, .. }) if len == bytes.len());
                prop_assert!(complete);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
