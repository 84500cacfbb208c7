//! The architecture as a test: which crate may know which, and what must not stand in whose sources.
//!
//! Every rule is a function over a value, a graph or a file's text, so that the tests at the end can add a forbidden
//! edge or line and see it named. `ARCHITECTURE.md` says why each rule is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

// ---------------------------------------------------------------------------------------------- the rules

/// Who may name whom among our own crates. Nothing may depend on `xtask` or, but in tests, on `testkit`.
const ARROWS: [(&str, &[&str]); 8] = [
    ("syncagent-protocol", &[]),
    ("syncagent-vault", &["syncagent-protocol"]),
    ("syncagent-sync", &["syncagent-protocol"]),
    (
        "syncagent-client",
        &["syncagent-sync", "syncagent-vault", "syncagent-protocol"],
    ),
    ("syncagent-server", &["syncagent-protocol"]),
    ("syncagent", &EVERYTHING),
    ("syncagent-testkit", &EVERYTHING),
    ("xtask", &[]),
];

const EVERYTHING: [&str; 5] = [
    "syncagent-client",
    "syncagent-server",
    "syncagent-sync",
    "syncagent-vault",
    "syncagent-protocol",
];

/// The crates that decide or translate: values in, values out.
const PURE: [&str; 3] = ["syncagent-protocol", "syncagent-vault", "syncagent-sync"];

/// What would let a pure crate do something, at whatever distance.
const IMPURE: [&str; 14] = [
    "async-std",
    "axum",
    "hyper",
    "interprocess",
    "mio",
    "notify",
    "rand",
    "reqwest",
    "rusqlite",
    "smol",
    "socket2",
    "sqlx",
    "tokio",
    "tungstenite",
];

/// Second opinions on cryptography. aws-lc-rs is the one provider; what it lacks is blake3 and argon2.
const OTHER_CRYPTOGRAPHY: [&str; 12] = [
    "aes",
    "aes-gcm",
    "ed25519-dalek",
    "hmac",
    "mbedtls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "ring",
    "rsa",
    "sha2",
    "sodiumoxide",
];

/// What a pure crate does not say outside its tests: time, files and environment arrive as arguments.
const IMPURE_WORDS: [&str; 8] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "thread::sleep",
    "SystemTime::now",
    "Instant::now",
];

/// Only the binary and the contributor's tool speak to a terminal.
const PRINTERS: [&str; 2] = ["syncagent", "xtask"];
const PRINTING: [&str; 5] = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];

/// The only files with `unsafe`, each a small module round a system call.
const UNSAFE_FILES: [&str; 1] = ["crates/syncagent/src/heap/linux.rs"];

/// Modules that may differ by system: one for each concern, a file named after the system or a `mod` in place.
const SYSTEM_MODULES: [&str; 4] = ["unix.rs", "linux.rs", "macos.rs", "windows.rs"];

/// Files of the product that may differ by system beyond that, each with its reason.
const SYSTEM_EXCEPTIONS: [(&str, &str); 1] = [(
    "crates/server/src/chunks/directory.rs",
    "one call: a directory is synced where it can be opened",
)];

// ---------------------------------------------------------------------------------------------- the graph

/// Package names and the names of what they depend on, for use and for building, on every system.
#[derive(Clone, Default)]
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Asks `cargo tree`, because it resolves features as a build does. (`cargo metadata` also lists packages that
    /// only a weak `name?/feature` mentions, which nobody ever builds.)
    fn of_workspace() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "tree",
                "--locked",
                "--workspace",
                "--all-features",
                "--target=all",
            ])
            .args(["--edges=normal,build", "--prefix=depth", "--format= {p}"])
            .current_dir(root())
            .output()
            .expect("cargo starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::read(&String::from_utf8(output.stdout).expect("cargo prints UTF-8"))
    }

    /// Reads lines of `DEPTH NAME vVERSION ...`, each a dependency of the nearest line above that is one less deep.
    fn read(tree: &str) -> Self {
        let mut graph = Self::default();
        let mut above: Vec<String> = Vec::new();
        for line in tree.lines() {
            let mut words = line.split_whitespace();
            let Some(depth) = words.next().and_then(|word| word.parse::<usize>().ok()) else {
                continue;
            };
            let name = words.next().expect("a package has a name").to_owned();
            above.truncate(depth);
            match above.last() {
                Some(parent) => graph.add(parent, &name),
                None => _ = graph.0.entry(name.clone()).or_default(),
            }
            above.push(name);
        }
        graph
    }

    fn add(&mut self, from: &str, to: &str) {
        self.0
            .entry(from.to_owned())
            .or_default()
            .insert(to.to_owned());
        self.0.entry(to.to_owned()).or_default();
    }

    fn knows(&self, from: &str, to: &str) -> bool {
        self.0.get(from).is_some_and(|direct| direct.contains(to))
    }

    /// The shortest way from one package to another, as `a -> b -> c`.
    fn way(&self, from: &str, to: &str) -> Option<String> {
        let mut ways = VecDeque::from([vec![from]]);
        let mut seen = BTreeSet::from([from]);
        while let Some(way) = ways.pop_front() {
            for next in self.0.get(way[way.len() - 1])? {
                let longer = [way.as_slice(), &[next.as_str()]].concat();
                if next == to {
                    return Some(longer.join(" -> "));
                }
                if seen.insert(next) {
                    ways.push_back(longer);
                }
            }
        }
        None
    }
}

/// Every forbidden edge of a graph, as the way that leads over it and the reason.
fn forbidden_edges(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (from, arrows) in ARROWS {
        let below = below(from);
        for (to, _) in ARROWS {
            if graph.knows(from, to) && !arrows.contains(&to) {
                found.push(format!("{from} -> {to}: there is no such arrow"));
            } else if !below.contains(to)
                && let Some(way) = graph.way(from, to)
            {
                found.push(format!(
                    "{way}: {from} must not know {to}, through others neither"
                ));
            }
        }
        for other in OTHER_CRYPTOGRAPHY {
            if let Some(way) = graph.way(from, other) {
                found.push(format!(
                    "{way}: aws-lc-rs is the one provider of cryptography"
                ));
            }
        }
    }
    for from in PURE {
        for to in IMPURE {
            if let Some(way) = graph.way(from, to) {
                found.push(format!("{way}: {from} is pure"));
            }
        }
    }
    if graph.0.contains_key("rustls") && graph.way("rustls", "aws-lc-rs").is_none() {
        found.push("rustls without aws-lc-rs: it brings a provider of its own".to_owned());
    }
    found
}

/// Everything that can be reached from a crate by the arrows.
fn below(from: &str) -> BTreeSet<&'static str> {
    let arrows = ARROWS
        .iter()
        .find(|(name, _)| *name == from)
        .map_or(&[][..], |(_, to)| to);
    arrows
        .iter()
        .flat_map(|to| below(to).into_iter().chain([*to]))
        .collect()
}

// ---------------------------------------------------------------------------------------------- the sources

/// Every complaint about one file. `path` is relative to the root, with forward slashes.
fn forbidden_lines(path: &str, text: &str) -> Vec<String> {
    let code = without_tests(&without_comments_and_strings(text));
    let owner = owner(path);
    let mut found = BTreeSet::new();
    let mut complain = |offset: usize, what: String| {
        let line = code[..offset].matches('\n').count() + 1;
        found.insert((line, format!("{path}:{line}: {what}")));
    };

    if PURE.contains(&owner.as_str()) {
        for word in IMPURE_WORDS {
            let imported = imports(&code)
                .into_iter()
                .filter(|(_, path)| path == word || path.starts_with(&format!("{word}::")));
            for offset in words(&code, word)
                .into_iter()
                .chain(imported.map(|(offset, _)| offset))
            {
                complain(offset, format!("{word} in {owner}, which is pure"));
            }
        }
    }
    if !PRINTERS.contains(&owner.as_str()) {
        for word in PRINTING {
            for offset in words(&code, word) {
                complain(
                    offset,
                    format!(
                        "{word} in {owner}, but only {} print",
                        PRINTERS.join(" and ")
                    ),
                );
            }
        }
    }
    if !UNSAFE_FILES.contains(&path) {
        for offset in words(&code, "unsafe") {
            complain(
                offset,
                "unsafe in a file that is not on the list".to_owned(),
            );
        }
    }
    if may_not_differ(path) {
        for offset in system_conditions(&code) {
            complain(
                offset,
                format!(
                    "differs by system; the place for it is a module named {}",
                    SYSTEM_MODULES.join(" or ")
                ),
            );
        }
    }
    found.into_iter().map(|(_, complaint)| complaint).collect()
}

/// The package a source file belongs to.
fn owner(path: &str) -> String {
    match path
        .strip_prefix("crates/")
        .and_then(|rest| rest.split_once('/'))
    {
        Some(("syncagent", _)) => "syncagent".to_owned(),
        Some((folder, _)) => format!("syncagent-{folder}"),
        None => "xtask".to_owned(),
    }
}

/// The product's files, but for the modules made for it. What a contributor runs looks for each system's tools.
fn may_not_differ(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("crates/")
        && !SYSTEM_MODULES.contains(&file)
        && !SYSTEM_EXCEPTIONS
            .iter()
            .any(|(exception, _)| *exception == path)
}

/// Where `word` stands as a whole: `unsafe` is not in `unsafe_code`, `print!` is not in `eprint!`.
fn words(code: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(offset, _)| offset)
        .filter(|&offset| !code[..offset].ends_with(part))
        .filter(|&offset| word.ends_with('!') || !code[offset + word.len()..].starts_with(part))
        .collect()
}

/// Every imported path in full, with where its `use` begins: `use std::{fs, io}` imports `std::fs` and `std::io`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for offset in words(code, "use") {
        let tree = code[offset + "use".len()..]
            .split(';')
            .next()
            .unwrap_or_default();
        let tree: String = tree.split_whitespace().collect();
        let mut paths = Vec::new();
        expand("", &tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (offset, path)));
    }
    found
}

fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((before, inside)) = tree.split_once('{') else {
        return paths.push(format!("{prefix}{tree}"));
    };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{prefix}{before}"), &inside[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Conditions on the system that do more than choose which module is compiled or imported.
fn system_conditions(code: &str) -> Vec<usize> {
    let systems = [
        "unix",
        "windows",
        "target_os",
        "target_family",
        "target_vendor",
    ];
    let mut found = Vec::new();
    for opening in ["#[cfg(", "#[cfg_attr(", "#![cfg(", "#![cfg_attr(", "cfg!("] {
        for (offset, _) in code.match_indices(opening) {
            let end = closing(code, offset + opening.len() - 1);
            let about_system = systems
                .iter()
                .any(|system| !words(&code[offset..end], system).is_empty());
            if about_system && !(opening == "#[cfg(" && selects_module(&code[end..])) {
                found.push(offset);
            }
        }
    }
    found
}

/// Whether a whole module or a `use` is what follows an attribute, given from its closing parenthesis on.
fn selects_module(rest: &str) -> bool {
    let mut item = rest.trim_start_matches([')', ']']).trim_start();
    while item.starts_with("#[") {
        item = item[closing(item, 1)..]
            .trim_start_matches(']')
            .trim_start();
    }
    if let Some(public) = item.strip_prefix("pub") {
        item = public.trim_start();
        if item.starts_with('(') {
            item = item[closing(item, 0)..]
                .trim_start_matches(')')
                .trim_start();
        }
    }
    item.starts_with("use ") || item.starts_with("mod ")
}

/// The offset of the bracket that closes the one at `open`, or the end.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len()
}

/// Where the next attribute stands that keeps an item to tests.
fn test_attribute(code: &str, from: usize) -> Option<usize> {
    ["#[cfg(test)]", "#[cfg(all(test,"]
        .iter()
        .filter_map(|attribute| code[from..].find(attribute))
        .min()
        .map(|at| from + at)
}

/// Blanks every item under `#[cfg(test)]`. Lines stay where they are.
fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    let mut from = 0;
    while let Some(start) = test_attribute(&code, from) {
        let mut at = start;
        // An item ends with its first semicolon or its first braces, whatever attributes and arguments it has.
        let end = loop {
            let Some(next) = code[at..].find(['[', '(', '{', ';']).map(|next| at + next) else {
                break code.len();
            };
            let after = (closing(&code, next) + 1).min(code.len());
            match code.as_bytes()[next] {
                b';' => break next + 1,
                b'{' => break after,
                _ => at = after,
            }
        };
        code.replace_range(start..end, &blank(&code[start..end]));
        from = end;
    }
    code
}

/// Blanks comments and what stands between quotes. Lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, 1),
            '\'' => character(rest),
            'b' | 'c' | 'r' if !in_word => prefixed_string(rest),
            _ => 0,
        };
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.push_str(&blank(&rest[..skipped]));
            rest = &rest[skipped..];
        }
    }
    out
}

fn blank(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect()
}

/// The length of a comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.as_bytes()[at..] {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string whose text begins at `from`.
fn quoted(text: &str, from: usize) -> usize {
    let mut escaped = false;
    for (offset, c) in text[from..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return from + offset + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `b"..."`, `c"..."`, `r"..."`, `br#"..."#` and the like; 0 if none begins here.
fn prefixed_string(text: &str) -> usize {
    let letters = text
        .find(|c| !matches!(c, 'b' | 'c' | 'r'))
        .unwrap_or(text.len());
    let raw = text[..letters].ends_with('r');
    let hashes = text[letters..].len() - text[letters..].trim_start_matches('#').len();
    let open = letters + hashes;
    if letters > 2 || (hashes > 0 && !raw) || !text[open..].starts_with('"') {
        return 0;
    }
    if !raw {
        return quoted(text, open + 1);
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[open + 1..]
        .find(&end)
        .map_or(text.len(), |at| open + 1 + at + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => chars
            .find(|(_, c)| *c == '\'')
            .map_or(text.len(), |(at, _)| at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/testkit stands two deep")
        .to_path_buf()
}

/// Every source file of every crate that is not a test, relative to the root, with its text.
fn sources() -> BTreeMap<String, String> {
    let root = root();
    let mut folders = vec![root.join("xtask/src")];
    for entry in fs::read_dir(root.join("crates")).expect("crates can be listed") {
        folders.push(entry.expect("an entry").path().join("src"));
    }
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .expect("below the root")
                    .to_string_lossy()
                    .replace('\\', "/");
                found.insert(
                    name,
                    fs::read_to_string(&path).expect("a source file is text"),
                );
            }
        }
    }
    let tests: Vec<String> = found
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")))
    };
    found.retain(|path, _| !is_test(path));
    found
}

/// What `#[cfg(test)] mod name;` declares, as paths without their ending: whole files that are tests.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let code = without_comments_and_strings(text);
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let inside = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder,
        _ => path.trim_end_matches(".rs"),
    };
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = test_attribute(&code, from) {
        from = closing(&code, start + 1) + 1;
        let item = code[from..].split([';', '{']).next().unwrap_or_default();
        if let Some(name) = item.trim().strip_prefix("mod ")
            && code[from + item.len()..].starts_with(';')
        {
            found.push(format!("{inside}/{name}"));
        }
    }
    found
}

// ---------------------------------------------------------------------------------------------- the tests

#[test]
fn the_crates_know_whom_they_may_know() {
    let graph = Graph::of_workspace();
    for (name, _) in ARROWS {
        assert!(
            graph.0.contains_key(name),
            "{name} is gone; bring ARROWS and ARCHITECTURE.md up to date"
        );
    }
    for name in graph.0.keys().filter(|name| name.starts_with("syncagent")) {
        assert!(
            ARROWS.iter().any(|(known, _)| known == name),
            "{name} is new; it needs arrows and a decision record"
        );
    }
    assert!(
        graph.way("syncagent", "syncagent-protocol").is_some(),
        "the graph was not read"
    );
    let found = forbidden_edges(&graph);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_sources_keep_to_their_rules() {
    let sources = sources();
    assert!(
        sources.contains_key("crates/sync/src/lib.rs"),
        "the sources were not found"
    );
    let found: Vec<String> = sources
        .iter()
        .flat_map(|(path, text)| forbidden_lines(path, text))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_lists_name_only_what_is_there() {
    let sources = sources();
    let code = |path: &str| {
        let text = sources
            .get(path)
            .unwrap_or_else(|| panic!("{path} is gone, strike it off the list"));
        without_tests(&without_comments_and_strings(text))
    };
    for path in UNSAFE_FILES {
        assert!(
            !words(&code(path), "unsafe").is_empty(),
            "{path} has no unsafe left, strike it off the list"
        );
    }
    for (path, _) in SYSTEM_EXCEPTIONS {
        assert!(
            !system_conditions(&code(path)).is_empty(),
            "{path} no longer differs, strike it off the list"
        );
    }
}

/// A small graph that breaks no rule.
fn sound_graph() -> Graph {
    let mut graph = Graph::default();
    for (from, arrows) in ARROWS {
        graph.0.entry(from.to_owned()).or_default();
        for to in arrows {
            graph.add(from, to);
        }
    }
    for (from, to) in [
        ("syncagent-sync", "ignore"),
        ("ignore", "walkdir"),
        ("syncagent-client", "reqwest"),
        ("reqwest", "rustls"),
        ("rustls", "aws-lc-rs"),
        ("syncagent-server", "tokio"),
    ] {
        graph.add(from, to);
    }
    graph
}

#[test]
fn an_added_edge_is_named() {
    assert_eq!(forbidden_edges(&sound_graph()), Vec::<String>::new());
    let rows: [(&[(&str, &str)], &str); 11] = [
        (
            &[("syncagent-server", "syncagent-vault")],
            "syncagent-server -> syncagent-vault",
        ),
        (
            &[("syncagent-server", "syncagent-sync")],
            "syncagent-server -> syncagent-sync",
        ),
        (
            &[
                ("syncagent-server", "innocent"),
                ("innocent", "syncagent-vault"),
            ],
            "syncagent-server -> innocent -> syncagent-vault",
        ),
        (
            &[("syncagent-client", "syncagent-server")],
            "syncagent-client -> syncagent-server",
        ),
        (
            &[("syncagent-vault", "syncagent-sync")],
            "syncagent-vault -> syncagent-sync",
        ),
        (
            &[("syncagent-protocol", "syncagent")],
            "syncagent-protocol -> syncagent",
        ),
        (
            &[("syncagent", "syncagent-testkit")],
            "syncagent -> syncagent-testkit",
        ),
        (&[("syncagent-sync", "tokio")], "syncagent-sync -> tokio"),
        (
            &[("walkdir", "tokio")],
            "syncagent-sync -> ignore -> walkdir -> tokio",
        ),
        (
            &[("syncagent-protocol", "rand")],
            "syncagent-protocol -> rand",
        ),
        (
            &[("rustls", "ring")],
            "syncagent-client -> reqwest -> rustls -> ring",
        ),
    ];
    for (edges, named) in rows {
        let mut graph = sound_graph();
        for (from, to) in edges {
            graph.add(from, to);
        }
        let found = forbidden_edges(&graph);
        assert!(
            found
                .iter()
                .any(|line| line.starts_with(&format!("{named}:"))),
            "{named} not in {found:#?}"
        );
    }
}

#[test]
fn rustls_with_another_provider_is_named() {
    let mut graph = sound_graph();
    graph.0.get_mut("rustls").expect("it is there").clear();
    assert_eq!(
        forbidden_edges(&graph),
        ["rustls without aws-lc-rs: it brings a provider of its own"]
    );
}

#[test]
fn a_tree_is_read_with_its_depths() {
    let tree = "0 a v1 (/a)\n1 b v2\n2 c v0 (proc-macro)\n1 d v1\n\n0 e v1\n1 b v2 (*)\n";
    let graph = Graph::read(tree);
    assert_eq!(graph.way("a", "c").as_deref(), Some("a -> b -> c"));
    assert_eq!(graph.way("e", "c").as_deref(), Some("e -> b -> c"));
    assert_eq!(graph.way("d", "c"), None);
    assert_eq!(graph.way("a", "e"), None);
}

#[test]
fn a_forbidden_line_is_named() {
    let rows = [
        (
            "crates/sync/src/x.rs",
            "fn f() {\n    std::fs::read(\"x\");\n}",
            "x.rs:2: std::fs",
        ),
        (
            "crates/sync/src/x.rs",
            "use std::{fs, io};",
            "x.rs:1: std::fs",
        ),
        (
            "crates/sync/src/x.rs",
            "use std::{\n  cell::{Cell, RefCell},\n  net::{IpAddr},\n};",
            "x.rs:1: std::net",
        ),
        (
            "crates/protocol/src/x.rs",
            "let now = SystemTime::now();",
            "x.rs:1: SystemTime::now",
        ),
        (
            "crates/vault/src/x.rs",
            "std::thread::sleep(pause)",
            "x.rs:1: std::thread",
        ),
        (
            "crates/sync/src/x.rs",
            "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { Instant::now() }",
            "x.rs:3: Instant::now",
        ),
        (
            "crates/sync/src/x.rs",
            "#[cfg(test)]\nuse a::b;\nfn g() { Instant::now() }",
            "x.rs:3: Instant::now",
        ),
        (
            "crates/client/src/x.rs",
            "println!(\"x\");",
            "x.rs:1: println!",
        ),
        (
            "crates/server/src/x.rs",
            "std::eprintln!(\"x\");",
            "x.rs:1: eprintln!",
        ),
        (
            "crates/client/src/x.rs",
            "let c = '\"'; unsafe { f() }; let d = '\"';",
            "x.rs:1: unsafe",
        ),
        (
            "crates/client/src/x.rs",
            "let s = r#\"a \" b\"#;\nunsafe fn f<'a>(x: &'a str) {}",
            "x.rs:2: unsafe",
        ),
        (
            "crates/client/src/x.rs",
            "#[cfg(unix)]\nfn f() {}",
            "x.rs:1: differs by system",
        ),
        (
            "crates/client/src/x.rs",
            "if cfg!(windows) {}",
            "x.rs:1: differs by system",
        ),
        (
            "crates/client/src/x.rs",
            "#[cfg_attr(not(unix), allow(unused))]\nfn f() {}",
            "x.rs:1: differs by system",
        ),
    ];
    for (path, text, named) in rows {
        let found = forbidden_lines(path, text);
        assert!(
            found.iter().any(|line| line.contains(named)),
            "{named} not in {found:#?} for {text}"
        );
    }
}

#[test]
fn an_allowed_line_is_not_named() {
    let rows = [
        (
            "crates/sync/src/x.rs",
            "// std::fs is not used here\n/* nor /* Instant::now */ std::net */",
        ),
        (
            "crates/sync/src/x.rs",
            "/// Like `println!`.\nconst WHY: &str = \"std::env \\\" std::fs\";",
        ),
        (
            "crates/sync/src/x.rs",
            "#[cfg(test)]\n#[allow(unused)]\nmod tests {\n use std::fs;\n fn f() { println!(\"{}\", '}'); }\n}",
        ),
        (
            "crates/sync/src/x.rs",
            "use std::{collections::BTreeMap, fmt};",
        ),
        (
            "crates/client/src/x.rs",
            "use std::fs; use std::time::Instant; fn f() { Instant::now(); }",
        ),
        (
            "crates/client/src/x.rs",
            "#![deny(unsafe_code)]\nfn blueprint() {}",
        ),
        (
            "crates/client/src/disk/mod.rs",
            "#[cfg(unix)]\nmod unix;\n#[cfg(unix)]\npub(crate) use unix::Disk;\n\
             #[cfg(windows)]\n#[path = \"windows.rs\"]\nmod windows;",
        ),
        (
            "crates/client/src/x.rs",
            "#[cfg(unix)]\nmod private { fn f() {} }\n#[cfg(not(unix))]\nmod private { fn f() {} }",
        ),
        (
            "crates/client/src/disk/unix.rs",
            "#[cfg(target_os = \"linux\")]\nfn f() {}",
        ),
        (
            "crates/client/src/x.rs",
            "#[cfg(feature = \"mount\")]\nfn f() {}",
        ),
        ("crates/syncagent/src/output.rs", "println!();"),
        ("xtask/src/main.rs", "if cfg!(windows) { eprintln!(); }"),
    ];
    for (path, text) in rows {
        assert_eq!(
            forbidden_lines(path, text),
            Vec::<String>::new(),
            "for {text}"
        );
    }
}

#[test]
fn a_file_that_is_a_test_is_known() {
    let declared = "#[cfg(test)]\nmod tests;\nmod real;\n#[cfg(all(test, unix))]\nmod more;\n\
                    #[cfg(test)]\nmod inline { fn f() { x; } }\n";
    assert_eq!(
        test_modules("crates/sync/src/lib.rs", declared),
        ["crates/sync/src/tests", "crates/sync/src/more"]
    );
    assert_eq!(
        test_modules("crates/sync/src/tree.rs", declared),
        ["crates/sync/src/tree/tests", "crates/sync/src/tree/more"]
    );
}
