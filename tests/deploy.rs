//! The files in docs/deploy name only metrics, flags and pages that exist.
#![cfg(feature = "cli")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use common::{DEADLINE, Serve};
use serde_json::Value;

fn doc(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the metrics of a running server, as its TYPE lines have them.
fn metrics() -> BTreeSet<String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("admin");
    let _server = Serve::start(&["--admin", &format!("unix:{}", socket.display())]);
    let mut stream = UnixStream::connect(socket).expect("the endpoint listens");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a timeout above zero");
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .expect("the endpoint reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
        .lines()
        .filter_map(|line| {
            line.strip_prefix("# TYPE ")?
                .split(' ')
                .next()
                .map(str::to_owned)
        })
        .collect()
}

/// Names of metrics in a text, those of a histogram's parts under its own.
fn mentioned(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("heartline_") || word.starts_with("process_"))
        .filter(|word| !word.ends_with('_'));
    let of_histogram = |word: &str| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| word.strip_suffix(part).map(str::to_owned))
    };
    words
        .map(|word| of_histogram(word).unwrap_or_else(|| word.to_owned()))
        .collect()
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Value::String(text)) = (name == "expr" || name == "definition", value)
                {
                    found.push(text.clone());
                }
                expressions(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let metrics = metrics();
    assert!(metrics.len() > 30, "{metrics:?}");

    let dashboard: Value =
        serde_json::from_str(&doc("deploy/grafana-dashboard.json")).expect("JSON");
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    let shown = mentioned(&asked.join("\n"));
    assert_eq!(
        shown.difference(&metrics).collect::<Vec<_>>(),
        [""; 0],
        "not a metric"
    );
    assert_eq!(
        metrics.difference(&shown).collect::<Vec<_>>(),
        [""; 0],
        "not on the dashboard"
    );

    for file in ["prometheus-alerts.yml", "prometheus-alerts-test.yml"] {
        let alerts = mentioned(&doc(&format!("deploy/{file}")));
        assert_eq!(
            alerts.difference(&metrics).collect::<Vec<_>>(),
            [""; 0],
            "{file}"
        );
    }
    let manual = mentioned(&doc("operations.md"));
    assert_eq!(
        manual.difference(&metrics).collect::<Vec<_>>(),
        [""; 0],
        "operations.md"
    );
}

#[test]
fn each_panel_has_a_number_and_a_place_of_its_own() {
    let dashboard: Value =
        serde_json::from_str(&doc("deploy/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().expect("a number"))
        .collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for y in at("y")..at("y") + at("h") {
            for x in at("x")..at("x") + at("w") {
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}

/// As GitHub makes them: of a heading's letters and digits in lower case, spaces as hyphens.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = markdown
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        heading
            .to_lowercase()
            .replace(' ', "-")
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn each_alert_has_a_section_to_turn_to_and_a_test() {
    let (alerts, anchors, tests) = (
        doc("deploy/prometheus-alerts.yml"),
        anchors(&doc("operations.md")),
        doc("deploy/prometheus-alerts-test.yml"),
    );
    let values = |key: &str| {
        alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix(key).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let (names, runbooks) = (values("- alert: "), values("runbook: docs/operations.md#"));
    assert!(names.len() >= 12);
    assert_eq!(names.len(), runbooks.len());
    for key in ["for: ", "labels: {severity: ", "summary: ", "description: "] {
        assert_eq!(values(key).len(), names.len(), "{key}");
    }
    for (name, runbook) in names.iter().zip(runbooks) {
        assert_eq!(name.to_lowercase(), runbook);
        assert!(
            anchors.contains(&runbook),
            "operations.md has no section {runbook}"
        );
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} is not tested"
        );
    }
}

/// Flags of git, cargo and the container's engine.
const NOT_OURS: &[&str] = &[
    "--format",
    "--rm",
    "--ulimit",
    "--stop-timeout",
    "--release",
    "--locked",
    "--target",
    "--from",
    "--interval",
    "--timeout",
];

/// The flags in a line that starts the server, be it a unit's, a container's or an example's.
#[test]
fn flags_in_the_docs_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_heartline"))
        .args(["serve", "--help"])
        .output()
        .expect("the binary starts");
    let help = String::from_utf8(help.stdout).expect("text");
    for file in [
        "deploy/heartline.service",
        "deploy/heartline.default",
        "deploy/Containerfile",
    ] {
        let text = doc(file);
        let flags = text
            .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .filter(|word| word.starts_with("--"));
        for flag in flags.filter(|flag| !NOT_OURS.contains(flag)) {
            assert!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                "{file}: {flag}"
            );
        }
    }
}

fn check(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_heartline"))
        .args(["serve", "--check"])
        .args(args)
        .output()
        .expect("the binary starts");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The value that a check prints for a key; `None` if it is not set.
fn settings(printed: &str) -> BTreeMap<&str, Option<&str>> {
    printed
        .lines()
        .map(|line| {
            match line
                .strip_prefix("# ")
                .and_then(|line| line.strip_suffix(" is not set"))
            {
                Some(key) => (key, None),
                None => {
                    let (key, value) = line
                        .rsplit_once("  # ")
                        .and_then(|(setting, _)| setting.split_once(" = "))
                        .expect("a setting");
                    (key, Some(value))
                }
            }
        })
        .collect()
}

/// It admits the addresses that were admitted without it, and names each of its settings.
#[test]
fn packaged_settings_are_the_defaults_plus_an_admin_socket() {
    // RuntimeDirectory= of the unit makes the directory that the check needs.
    let run = tempfile::tempdir().expect("a temporary directory");
    let run = run.path().to_str().expect("a path in UTF-8");
    let text = doc("deploy/heartline.toml").replace("/run/heartline", run);
    let path = format!("{run}/heartline.toml");
    fs::write(&path, text).expect("room on the disk");
    let (defaults, installed) = (check(&[]), check(&["--config", &path]));
    let (defaults, mut installed) = (settings(&defaults), settings(&installed));
    let socket = format!("\"unix:{run}/admin.sock\"");
    assert_eq!(installed.insert("admin", None), Some(Some(&*socket)));
    assert_eq!(installed, defaults);

    let text = doc("deploy/heartline.toml");
    let shown: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once(" = "))
        .collect();
    assert_eq!(
        shown.keys().collect::<Vec<_>>(),
        defaults.keys().collect::<Vec<_>>()
    );
    for (key, value) in defaults {
        assert!(value.is_none_or(|value| value == shown[key]), "{key}");
    }
}

/// Those in the repository: docs/deploy/debian/build makes the others.
#[test]
fn files_of_the_package_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("it is there");
    let manifest = toml::de::DeTable::parse(&manifest).expect("valid TOML");
    let assets =
        manifest.get_ref()["package"].get_ref()["metadata"].get_ref()["deb"].get_ref()["assets"]
            .get_ref();
    let sources = assets
        .as_array()
        .expect("a list")
        .iter()
        .map(|asset| asset.get_ref()[0].get_ref().as_str().expect("a path"));
    for source in sources.filter(|source| !source.starts_with("target/")) {
        let (directory, name) = source.rsplit_once('/').unwrap_or((".", source));
        let (start, end) = name.split_once('*').unwrap_or((name, ""));
        let mut names = fs::read_dir(root.join(directory))
            .expect(directory)
            .map(|entry| entry.expect("an entry").file_name());
        assert!(
            names.any(|name| name
                .to_str()
                .is_some_and(|name| name.starts_with(start) && name.ends_with(end))),
            "{source}"
        );
    }
}

#[test]
fn debian_changelog_has_this_version() {
    let first = doc("deploy/debian/changelog")
        .lines()
        .next()
        .expect("an entry")
        .to_owned();
    assert!(
        first.starts_with(&format!("heartline ({}-", env!("CARGO_PKG_VERSION"))),
        "{first}"
    );
}

/// A server that has closed one connection and holds others, queried for all that the manual names.
fn run_as_written(server: &mut Serve, function: &str) {
    server.served().finish();
    server.wait_for_closes(1);
    let _held = [server.served(), server.served()];
    let manual = doc("operations.md");
    let (ends, looks): (Vec<_>, Vec<_>) = manual
        .lines()
        .filter(|line| line.starts_with("ask "))
        .partition(|line| line.contains(" -X "));
    assert!(looks.len() >= 12, "{looks:?}");
    for command in looks {
        let output = bash(&format!("{function}\n{command}"));
        assert!(
            output.lines().all(|line| line != "null"),
            "{command}: {output}"
        );
        assert!(
            !output.is_empty() || command.contains("select("),
            "{command}"
        );
    }
    let [drain, kick] = ends[..] else {
        panic!("{ends:?}")
    };
    let id = bash(&format!(
        "{function}\nask connections | jq -j '.connections[0].id'"
    ));
    bash(&format!("{function}\n{}", kick.replace("ID", &id)));
    assert_eq!(
        common::field(&server.wait_for_closes(2)[1], "reason"),
        "requested"
    );
    bash(&format!("{function}\n{drain}"));
    assert!(server.wait().success());
}

fn bash(script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .output()
        .expect("bash is installed");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stderr.is_empty(),
        "{script}: {stderr}{stdout}"
    );
    stdout.into_owned()
}

#[test]
#[ignore = "needs bash, curl and jq"]
fn requests_of_the_manual_are_answered() {
    let manual = doc("operations.md");
    let mut functions = manual.lines().filter(|line| line.starts_with("ask() "));
    let (socket, address) = (
        functions.next().expect("one"),
        functions.next().expect("another"),
    );

    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("admin.sock");
    let mut server = Serve::start(&["--admin", &format!("unix:{}", path.display())]);
    run_as_written(
        &mut server,
        &socket.replace("/run/heartline/admin.sock", path.to_str().expect("text")),
    );

    let mut server = common::serve_with_admin(&[]);
    let function = address.replace("http://127.0.0.1:7879", &server.admin);
    run_as_written(&mut server, &function);
}
