//! Rules for the source tree that no compiler knows: which crate may use which, how large a file
//! may grow, where `unsafe` may stand, what must be documented, what must not be written down.
//!
//! Each failure names the file and the remedy. Files that `.gitignore` names are not checked. Rules
//! that the compiler and clippy can check (formatting, missing docs, unwraps) are left to them.

mod prose;
mod rust;
mod sizes;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use rust::{has_word, names_of_the_crate, without_comments_and_strings};

/// The crates and the prism crates that each may depend on: the arrows of `docs/ARCHITECTURE.md`.
const ARROWS: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("wal", &[]),
    ("backends", &[]),
    ("core", &["prism-backends", "prism-codec", "prism-wal"]),
    ("loadgen", &["prism-codec"]),
    (
        "bench",
        &[
            "prism-backends",
            "prism-codec",
            "prism-core",
            "prism-loadgen",
            "prism-wal",
        ],
    ),
];

/// Dependencies that would give a crate knowledge it must not have.
const STRANGERS: &[(&str, &[&str], &str)] = &[
    (
        "wal",
        &["prost", "rusqlite", "monoio", "tokio"],
        "the log stores opaque bytes and is driven from outside",
    ),
    (
        "backends",
        &["prost", "monoio"],
        "a store knows neither the wire nor the shard's reactor",
    ),
    (
        "codec",
        &["monoio", "rusqlite", "tokio", "socket2", "rustix"],
        "codec does no I/O",
    ),
];

/// Folders of `core/src` (or files of the same name), layer by layer from the bottom. Each may
/// import from lower layers only: code that two of one layer need belongs below them.
const FLOORS: &[&[&str]] = &[
    &["runtime", "namespace", "identity", "wal_key", "client"],
    &["call", "config"],
    &["api", "metrics", "plan"],
    &["log"],
    &["worker", "dispatch"],
    &["shard", "control"],
    &["serve"],
    &["cli", "main", "lib"],
];

/// The only folder of `core/src` that may name the runtime, so that it can be swapped.
const NAMES_MONOIO: &str = "core/src/runtime/";

/// Allowed names at the top level, in addition to files that git ignores.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".git",
    ".github",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "admin",
    "backends",
    "bench",
    "clients",
    "clippy.toml",
    "codec",
    "core",
    "docker-compose.test.yml",
    "docs",
    "examples",
    "fuzz",
    "loadgen",
    "proto",
    "pyproject.toml",
    "rustfmt.toml",
    "stack",
    "tooling",
    "wal",
];

/// The modules in which `unsafe` may stand. At most two, small, each with a number that justifies
/// it.
const UNSAFE_MODULES: &[&str] = &["backends/src/sqlite/file/system_calls.rs"];
const UNSAFE_MODULES_MAX: usize = 2;

/// Modules that start threads.
const SPAWNERS: [&str; 2] = ["core/src/runtime/threads.rs", "wal/src/disk/threads.rs"];
/// The module that writes to the standard streams for all others.
const PRINTER: &str = "core/src/runtime/diagnostics.rs";

/// Names that pure modules (all of codec, outside its tests) must not use.
const IMPURE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "async fn",
    ".await",
];

#[test]
fn crate_arrows_point_down_only() {
    let mut problems = Problems::default();
    for (name, allowed) in ARROWS {
        let manifest = format!("{name}/Cargo.toml");
        for dependency in dependencies(&read(&manifest)) {
            if dependency.starts_with("prism-") && !allowed.contains(&dependency.as_str()) {
                problems.add(
                    &manifest,
                    format!("must not depend on {dependency}: move what it needs, or pass it in"),
                );
            }
            for (_, strangers, why) in STRANGERS.iter().filter(|(stranger, ..)| stranger == name) {
                // Tests may compare with other stacks; the crate itself may not use them.
                if strangers.contains(&dependency.as_str())
                    && !is_for_tests_only(&read(&manifest), &dependency)
                {
                    problems.add(&manifest, format!("must not depend on {dependency}: {why}"));
                }
            }
        }
    }
    for member in members(&read("Cargo.toml")) {
        if !ARROWS.iter().any(|(name, _)| *name == member) {
            problems.add(
                "Cargo.toml",
                format!("new crate {member}: give it its arrows here and in ARCHITECTURE"),
            );
        }
    }
    problems.report();
}

#[test]
fn core_imports_from_lower_floors_only() {
    let mut problems = Problems::default();
    let floor_of = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    for file in files_ending(".rs") {
        let Some(path) = file.strip_prefix("core/src/") else {
            continue;
        };
        let own = path.split(['/', '.']).next().unwrap_or_default();
        let Some(floor) = floor_of(own) else {
            problems.add(&file, "stands on no floor: give it one in `FLOORS`");
            continue;
        };
        let code = without_comments_and_strings(&read(&file));
        for (line, name) in names_of_the_crate(&code) {
            let below = floor_of(&name).is_none_or(|imported| imported < floor);
            if name != own && !below {
                problems.add(
                    &format!("{file}:{line}"),
                    format!(
                        "imports from {name}, which is no lower floor: move what it needs down, or pass it in"
                    ),
                );
            }
        }
        if has_word(&code, "monoio") && !file.starts_with(NAMES_MONOIO) {
            problems.add(&file, format!("names monoio: only {NAMES_MONOIO} may"));
        }
    }
    problems.report();
}

#[test]
fn the_top_level_is_as_architecture_says() {
    let mut problems = Problems::default();
    let ignore = Ignore::read();
    for (name, path) in children(&root()) {
        if !TOP_LEVEL.contains(&name.as_str()) && !ignore.covers(&name, path.is_dir()) {
            problems.add(
                &name,
                "does not belong at the top level: move it, or name it in ARCHITECTURE and here",
            );
        }
    }
    problems.report();
}

#[test]
fn unsafe_stands_in_listed_modules_only_with_its_argument() {
    assert!(
        UNSAFE_MODULES.len() <= UNSAFE_MODULES_MAX,
        "at most {UNSAFE_MODULES_MAX} modules may use unsafe"
    );
    let mut problems = Problems::default();
    for file in files_ending(".rs") {
        let text = read(&file);
        let code = without_comments_and_strings(&text);
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in code
            .lines()
            .enumerate()
            .filter(|(_, line)| has_word(line, "unsafe"))
        {
            let place = format!("{file}:{}", number + 1);
            if !UNSAFE_MODULES.contains(&file.as_str()) {
                problems.add(
                    &place,
                    "unsafe is allowed only in the modules listed in core/tests/tidy/main.rs",
                );
            }
            let before = &lines[number.saturating_sub(8)..=number];
            if !before.iter().any(|line| line.contains("SAFETY:")) {
                problems.add(
                    &place,
                    "needs a `// SAFETY:` comment that names the invariant it relies on",
                );
            }
        }
    }
    problems.report();
}

#[test]
fn threads_of_the_gateway_are_supervised_and_never_write_to_a_standard_stream() {
    let mut problems = Problems::default();
    let server = ["core/src/", "backends/src/", "wal/src/", "codec/src/"];
    let is_server = |file: &&String| {
        server.iter().any(|folder| file.starts_with(folder))
            && !file.contains("/cli/")
            && !file.ends_with("tests.rs")
            && !file.ends_with("measure.rs")
    };
    for file in files_ending(".rs").iter().filter(is_server) {
        let text = read(file);
        let code =
            without_comments_and_strings(text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default());
        for (number, line) in code.lines().enumerate() {
            let place = format!("{file}:{}", number + 1);
            let spawns = line.contains("thread::Builder") || line.contains("thread::spawn");
            if spawns && !SPAWNERS.contains(&file.as_str()) {
                problems.add(
                    &place,
                    "start threads by `threads::spawn`, so that their end is noticed",
                );
            }
            let prints = [
                "print!",
                "println!",
                "eprint!",
                "eprintln!",
                "stdout()",
                "stderr()",
            ];
            if prints.iter().any(|word| line.contains(word)) && file != PRINTER {
                problems.add(
                    &place,
                    "use `tracing`: a standard stream can block or fail the thread that writes to it",
                );
            }
        }
    }
    problems.report();
}

#[test]
fn every_crate_takes_the_workspace_lints_which_forbid_unsafe() {
    let mut problems = Problems::default();
    if !read("Cargo.toml")
        .lines()
        .any(|line| line.trim() == "unsafe_code = \"forbid\"")
    {
        problems.add(
            "Cargo.toml",
            "must hold `unsafe_code = \"forbid\"` under [workspace.lints.rust]",
        );
    }
    for member in members(&read("Cargo.toml")) {
        let excused = UNSAFE_MODULES
            .iter()
            .any(|module| module.starts_with(&format!("{member}/")));
        let manifest = format!("{member}/Cargo.toml");
        if !excused
            && !section(&read(&manifest), "[lints]")
                .iter()
                .any(|line| line == "workspace = true")
        {
            problems.add(&manifest, "must hold `[lints]` with `workspace = true`");
        }
    }
    problems.report();
}

#[test]
fn codec_does_no_io_and_reads_no_clock() {
    let mut problems = Problems::default();
    for file in files_ending(".rs")
        .iter()
        .filter(|file| file.starts_with("codec/src/") && !file.ends_with("tests.rs"))
    {
        let text = read(file);
        let code = without_comments_and_strings(text.split("#[cfg(test)]").next().unwrap_or_default());
        for (number, line) in code.lines().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                problems.add(
                    &format!("{file}:{}", number + 1),
                    format!("`{word}`: pass time and bytes in instead"),
                );
            }
        }
    }
    problems.report();
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    // In pieces, so that this file does not contain what it forbids.
    let paths = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]].map(|parts| parts.concat());
    let hosts = [
        ["static.crates", ".io"],
        ["index.crates", ".io"],
        ["registry.npmjs", ".org"],
        ["files.pythonhosted", ".org"],
        ["pypi", ".org/"],
        ["proxy.golang", ".org"],
        ["sum.golang", ".org"],
        ["deb.debian", ".org"],
        ["repo.maven.apache", ".org"],
        ["repo1.maven", ".org"],
    ]
    .map(|parts| parts.concat());
    let mut problems = Problems::default();
    for file in all_files() {
        let Ok(text) = fs::read_to_string(root().join(&file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let place = format!("{file}:{}", number + 1);
            if let Some(path) = paths.iter().find(|path| line.contains(*path)) {
                problems.add(
                    &place,
                    format!("names `{path}`, a folder of one machine: make it relative or a setting"),
                );
            }
            if let Some(host) = hosts.iter().find(|host| line.contains(*host)) {
                problems.add(
                    &place,
                    format!("names the package registry `{host}`: leave that to the clients' settings"),
                );
            }
        }
        if file.ends_with("package-lock.json") && text.contains("\"resolved\":") {
            problems.add(
                &file,
                "holds download addresses: npm's omit-lockfile-registry-resolved=true leaves them out",
            );
        }
    }
    problems.report();
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut problems = Problems::default();
    for file in files_ending(".md") {
        let text = read(&file);
        for (number, target) in links(&text) {
            let place = format!("{file}:{number}");
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            if path.contains(':') {
                continue; // An address on the net.
            }
            let folder = Path::new(&file).parent().unwrap_or(Path::new(""));
            let wanted = if path.is_empty() {
                PathBuf::from(&file)
            } else {
                folder.join(path)
            };
            let Ok(found) = root().join(&wanted).canonicalize() else {
                problems.add(
                    &place,
                    format!("links to `{path}`, which is not there: correct the link"),
                );
                continue;
            };
            let is_document = found.extension().is_some_and(|extension| extension == "md");
            if !anchor.is_empty() && is_document {
                let text = fs::read_to_string(&found).unwrap_or_default();
                if !headings(&text).iter().any(|heading| heading == anchor) {
                    problems.add(
                        &place,
                        format!("links to the heading `#{anchor}`, which is not there"),
                    );
                }
            }
        }
    }
    problems.report();
}

#[test]
fn every_method_of_our_services_is_documented() {
    let mut problems = Problems::default();
    for file in files_ending(".proto")
        .iter()
        .filter(|file| file.starts_with("proto/prism/"))
    {
        let text = read(file);
        if !text.starts_with("// ") {
            problems.add(file, "must open with a comment that says what it defines");
        }
        let mut before = "";
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.starts_with("rpc ") && !before.starts_with("//") {
                problems.add(
                    &format!("{file}:{}", number + 1),
                    "say above the rpc what it does and promises",
                );
            }
            before = line;
        }
    }
    problems.report();
}

/// A collection of problems, so that one run shows all of them.
#[derive(Default)]
struct Problems(String);

impl Problems {
    fn add(&mut self, place: &str, advice: impl AsRef<str>) {
        writeln!(self.0, "  {place}: {}", advice.as_ref()).expect("writing to a String cannot fail");
    }

    #[track_caller]
    fn report(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn children(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    found.sort();
    found
}

/// All files of the project by their path from the root, without those that git ignores.
fn all_files() -> Vec<String> {
    let ignore = Ignore::read();
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for (name, path) in children(&root().join(&folder)) {
            let relative = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            if name == ".git" || ignore.covers(&relative, path.is_dir()) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(relative)
            } else {
                found.push(relative)
            }
        }
    }
    found.sort();
    assert!(
        found.iter().any(|file| file == "core/tests/tidy/main.rs"),
        "the tree must be there to be read"
    );
    found
}

fn files_ending(suffix: &str) -> Vec<String> {
    all_files()
        .into_iter()
        .filter(|file| file.ends_with(suffix))
        .collect()
}

/// The part of `.gitignore` that this project uses: `name/`, `/path/from/the/top/`, and `*` within
/// one part of a path.
struct Ignore(Vec<String>);

impl Ignore {
    fn read() -> Ignore {
        let text = read(".gitignore");
        Ignore(
            text.lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned)
                .collect(),
        )
    }

    fn covers(&self, path: &str, is_folder: bool) -> bool {
        self.0.iter().any(|pattern| {
            let folders_only = pattern.ends_with('/');
            let anchored = pattern.trim_end_matches('/').contains('/');
            let wanted: Vec<&str> = pattern.trim_matches('/').split('/').collect();
            let parts: Vec<&str> = path.split('/').collect();
            let parts = if anchored {
                &parts[..]
            } else {
                &parts[parts.len() - 1..]
            };
            (is_folder || !folders_only)
                && wanted.len() == parts.len()
                && wanted
                    .iter()
                    .zip(parts)
                    .all(|(pattern, part)| glob(pattern, part))
        })
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))
        }),
    }
}

/// The lines of one section of a manifest.
fn section(manifest: &str, title: &str) -> Vec<String> {
    let lines = manifest.lines().map(str::trim);
    lines
        .skip_while(|line| *line != title)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .map(str::to_owned)
        .collect()
}

/// The names in all dependency sections of a manifest, `[dependencies.name]` tables among them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[') {
            let title = title.trim_end_matches(']');
            inside = title.ends_with("dependencies");
            if let Some((_, name)) = title.rsplit_once("dependencies.") {
                found.push(name.to_owned());
            }
        } else if inside && !line.starts_with('#') {
            found.extend(
                line.split(['=', '.', ' '])
                    .next()
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    found
}

fn is_for_tests_only(manifest: &str, dependency: &str) -> bool {
    let normal = section(manifest, "[dependencies]").join("\n");
    !dependencies(&format!("[dependencies]\n{normal}"))
        .iter()
        .any(|name| name == dependency)
}

fn members(manifest: &str) -> Vec<String> {
    let line = manifest
        .lines()
        .find(|line| line.starts_with("members"))
        .expect("a workspace names its members");
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The targets of `[text](target)` outside of code, with their line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (number, line) in text.lines().enumerate() {
        in_fence ^= line.trim_start().starts_with("```");
        if in_fence {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        found.extend(targets.map(|target| {
            (
                number + 1,
                target.split(' ').next().unwrap_or_default().to_owned(),
            )
        }));
    }
    found
}

/// The anchors of a document's headings, made as code hosts make them.
fn headings(text: &str) -> Vec<String> {
    let titles = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim());
    let anchor = |title: &str| -> String {
        let kept = title
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    titles.map(anchor).collect()
}

#[test]
fn the_reader_of_gitignore_knows_its_patterns() {
    let ignore = Ignore(
        ["/target/", "node_modules/", "*.pyc", "/a/*/gen/"]
            .map(str::to_owned)
            .to_vec(),
    );
    for (path, is_folder, covered) in [
        ("target", true, true),
        ("core/target", true, false),
        ("target", false, false),
        ("x/node_modules", true, true),
        ("x/y.pyc", false, true),
        ("a/go/gen", true, true),
        ("a/gen", true, false),
        ("b/a/go/gen", true, false),
    ] {
        assert_eq!(ignore.covers(path, is_folder), covered, "{path}");
    }
}
