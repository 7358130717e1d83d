//! The structure that docs/architecture.md describes, checked in the source: imports go down, and
//! the engine has neither a socket nor a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src`, from the ground up. A room imports only rooms that come before it.
const FLOORS: [&[&str]; 9] = [
    &["time", "id", "close", "error", "access_list", "humanize"],
    &[
        "totals",
        "keepalive",
        "progress",
        "console",
        "framing",
        "directory",
    ],
    &["config", "net"],
    &["engine", "args"],
    &["server", "client", "logging", "apps", "tokens", "jwt"],
    &["admin", "connect"],
    &["settings", "status", "top"],
    &["serve"],
    &["bench", "cli", "main", "lib"],
];

/// What the pure rooms may not name.
const IMPURE: [&str; 5] = [
    "mio",
    "socket2",
    "rustix",
    "Instant::now",
    "SystemTime::now",
];
const PURE: [&str; 11] = [
    "time",
    "id",
    "close",
    "access_list",
    "totals",
    "keepalive",
    "progress",
    "framing",
    "directory",
    "config",
    "engine",
];

struct Source {
    /// From `src`, without the extension: `admin/server/http`.
    path: String,
    /// Without comments and unit tests.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split('/').next().expect("a path has a part")
    }

    /// The paths that follow `prefix::`, as far as they are written out.
    fn paths_after<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
        self.code.match_indices(prefix).map(move |(at, _)| {
            let end = |char: char| !char.is_alphanumeric() && char != '_' && char != ':';
            let rest = &self.code[at + prefix.len()..];
            let path = &rest[..rest.find(end).unwrap_or(rest.len())];
            path.split("::").filter(|part| !part.is_empty()).collect()
        })
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut dirs, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory of the sources") {
            let path: PathBuf = entry.expect("it can be read").path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if path.is_dir() && !is_test {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = fs::read_to_string(&path).expect("a source in UTF-8");
                let text = text.split("#[cfg(test)]\nmod tests {").next();
                let code = text.unwrap_or_default().lines();
                let is_code = |line: &&str| !line.trim_start().starts_with("//");
                let relative = path.strip_prefix(&root).expect("below src");
                sources.push(Source {
                    path: relative.with_extension("").display().to_string(),
                    code: code.filter(is_code).collect::<Vec<_>>().join("\n"),
                });
            }
        }
    }
    assert!(sources.len() > 100, "{} sources", sources.len());
    sources
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn imports_go_down() {
    for source in sources() {
        if source.room() == "lib" || source.room() == "main" {
            continue;
        }
        assert!(
            floor(source.room()).is_some(),
            "{} stands on no floor: add it to FLOORS and to docs/architecture.md",
            source.room()
        );
        for path in source.paths_after("crate::") {
            // `crate::{a, b}`: rooms of the binary, above all others.
            let Some(room) = path.first().filter(|part| floor(part).is_some()) else {
                continue;
            };
            assert!(
                *room == source.room() || floor(room) < floor(source.room()),
                "{} imports {room}, which is not below it",
                source.path
            );
        }
    }
}

#[test]
fn pure_rooms_name_no_socket_and_no_clock() {
    for source in sources() {
        for word in IMPURE {
            let named = source.code.match_indices(word).any(|(at, _)| {
                let before = source.code[..at].chars().next_back();
                let after = source.code[at + word.len()..].chars().next();
                let is_name = |char: char| char.is_alphanumeric() || char == '_';
                !before.is_some_and(is_name) && !after.is_some_and(is_name)
            });
            assert!(
                !named || !PURE.contains(&source.room()),
                "{} names {word}",
                source.path
            );
        }
    }
}

/// A module may use what is in its parent, so `mod.rs` files are left out.
#[test]
fn files_form_no_circles() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &sources {
        let parent = source
            .path
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent);
        let siblings = source
            .paths_after("super::")
            .map(|path| (parent.to_owned(), path));
        let absolute = source
            .paths_after("crate::")
            .map(|path| (String::new(), path));
        for (mut base, path) in siblings.chain(absolute) {
            for part in path {
                if !base.is_empty() {
                    base.push('/');
                }
                base.push_str(part);
                if let Some(module) = modules.get(base.as_str())
                    && *module != source.path
                {
                    imports.entry(&source.path).or_default().insert(module);
                }
            }
        }
    }
    // What imports nothing that is left can be taken away; a circle stays.
    loop {
        let left: BTreeSet<&str> = imports.keys().copied().collect();
        imports.retain(|_, targets| {
            targets.retain(|target| left.contains(target));
            !targets.is_empty()
        });
        if imports.len() == left.len() {
            break;
        }
    }
    assert!(imports.is_empty(), "a circle among {imports:#?}");
}
