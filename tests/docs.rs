//! Documents say what is so: the paths, commands and options that they name exist, and the code keeps to the tables of
//! `docs/ARCHITECTURE.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// What a path in this repository begins with.
const PATHS: [&str; 8] = ["src/", "tests/", "docs/", "schemas/", "mirror-specs/", "packaging/", "benches/", ".ci/"];

/// What makes a path a pattern or an example rather than a name.
const NO_NAME: [char; 7] = ['<', '*', '{', '…', '[', '$', '?'];

/// Code that writes to a file system. Reading is free.
const WRITES: [&str; 16] = [
    "fs::write(",
    "fs::rename(",
    "fs::remove_",
    "fs::create_dir",
    "fs::copy(",
    "fs::hard_link(",
    "fs::set_permissions(",
    "symlink(",
    "File::create",
    ".write(true)",
    ".append(true)",
    ".create(true)",
    ".truncate(true)",
    ".create_new(true)",
    "Connection::open",
    "tempfile::",
];

/// What is built for tests only, and is not named as such.
const TEST_PARTS: [&str; 1] = ["src/durable/faults.rs"];

/// Code that prints.
const PRINTS: [&str; 7] = ["println!", "eprintln!", "print!(", "eprint!(", "dbg!(", "io::stdout", "io::stderr"];

/// What starts programs.
const STARTS: [&str; 2] = ["src/cli/deep.rs", "src/registry/credentials/helper.rs"];

/// The stages. One may take another's value, but does not call it.
const STAGES: [&str; 6] = ["plan", "pull", "export", "verify", "replay", "client_config"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` with this extension, as paths from the root.
fn files(folder: &str, extension: &str, deep: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_owned();
        if path.is_dir() && deep {
            found.extend(files(&name.to_string_lossy(), extension, true));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(name);
        }
    }
    found.sort();
    found
}

fn fail(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

// ---- documents ----

/// A piece of a document in code style.
struct Code {
    place: String,
    text: String,
    /// From a fenced block; otherwise from a line of text.
    fenced: bool,
}

fn code() -> Vec<Code> {
    let documents = files("", "md", false).into_iter().chain(files("docs", "md", false));
    documents.flat_map(|file| code_of(&file)).collect()
}

fn code_of(file: &Path) -> Vec<Code> {
    let (mut found, mut in_fence, mut continued) = (Vec::new(), false, false);
    for (at, line) in read(&root().join(file)).lines().enumerate() {
        let place = format!("{}:{}", file.display(), at + 1);
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continued = false;
        } else if in_fence {
            let text = line.trim_end_matches('\\').to_owned();
            match found.last_mut() {
                Some(Code { text: before, .. }) if continued => *before += &text,
                _ => found.push(Code { place, text, fenced: true }),
            }
            continued = line.ends_with('\\');
        } else {
            found.extend(spans(line).into_iter().map(|text| Code { place: place.clone(), text, fenced: false }));
        }
    }
    found
}

/// What stands between equal runs of backticks.
fn spans(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(begin) = rest.find('`') {
        let ticks = rest[begin..].len() - rest[begin..].trim_start_matches('`').len();
        let inner = &rest[begin + ticks..];
        let Some(end) = inner.find(&"`".repeat(ticks)) else { break };
        found.push(inner[..end].to_owned());
        rest = &inner[end + ticks..];
    }
    found
}

#[test]
fn paths_in_documents_exist() {
    let mut problems = Vec::new();
    for Code { place, text, .. } in code() {
        for word in text.split_whitespace() {
            let word = word.trim_matches(|c: char| "\"'(),;:".contains(c));
            let named = PATHS.iter().any(|prefix| word.starts_with(prefix)) && !word.contains(NO_NAME);
            let path = word.split(':').next().unwrap_or_default();
            if named && !root().join(path).exists() {
                problems.push(format!("{place}: {path} does not exist"));
            }
        }
    }
    fail(problems);
}

/// The subcommands (`key generate`), each with its options.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    add_commands(&[], &mut found);
    found
}

fn add_commands(path: &[&str], found: &mut BTreeMap<String, BTreeSet<String>>) {
    let output = Command::new(env!("CARGO_BIN_EXE_sealift")).args(path).arg("--help").output().unwrap();
    assert!(output.status.success(), "sealift {} --help failed", path.join(" "));
    let help = String::from_utf8(output.stdout).unwrap();
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-')).flat_map(options);
    found.insert(path.join(" "), options.collect());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for line in listed.filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap_or_default();
        if name != "help" {
            add_commands(&[path, &[name]].concat(), found);
        }
    }
}

/// The long options in a line.
fn options(line: &str) -> Vec<String> {
    let words = line.split([' ', '=', ',', '[', ']', '|', '"', '.']).filter(|word| word.starts_with("--"));
    words.map(str::to_owned).collect()
}

#[test]
fn commands_and_options_in_documents_exist() {
    let commands = commands();
    let all: BTreeSet<&String> = commands.values().flatten().collect();
    let mut problems = Vec::new();
    for Code { place, text, fenced } in code() {
        if !fenced && text.starts_with("--") {
            let unknown = options(&text).into_iter().filter(|option| !all.contains(option));
            problems.extend(unknown.map(|option| format!("{place}: sealift has no option {option}")));
        }
        for call in text.split(['|', ';', '&', '#']) {
            check_call(call, &commands).into_iter().for_each(|why| problems.push(format!("{place}: {why}")));
        }
    }
    fail(problems);
}

/// What is wrong with a command line, if it is one of sealift.
fn check_call(call: &str, commands: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let words: Vec<&str> = call.split_whitespace().collect();
    let is_name = |word: &str| word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.contains(['/', '.']);
    let is_sealift = |word: &str| word == "sealift" || word.ends_with("/sealift") || word.ends_with("=sealift");
    let begin = words.windows(2).position(|pair| is_sealift(pair[0]) && is_name(pair[1]) && !is_sealift(pair[1]));
    let Some(begin) = begin else { return Vec::new() };
    let (name, arguments) = (words[begin + 1], &words[begin + 2..]);
    if name == "help" {
        return Vec::new();
    }
    let nested = arguments.first().map(|next| format!("{name} {next}")).filter(|path| commands.contains_key(path));
    let path = nested.unwrap_or_else(|| name.to_owned());
    let Some(known) = commands.get(&path) else { return vec![format!("there is no `sealift {path}`")] };
    let has_subcommands = commands.keys().any(|other| other.starts_with(&format!("{path} ")));
    if let Some(next) = arguments.first().filter(|next| has_subcommands && is_name(next)) {
        return vec![format!("there is no `sealift {path} {next}`")];
    }
    let unknown = options(&arguments.join(" ")).into_iter().filter(|option| !known.contains(option));
    unknown.map(|option| format!("`sealift {path}` has no option {option}")).collect()
}

// ---- code ----

/// The lines of the fenced block that begins with three backticks and `name`.
fn block(name: &str) -> Vec<String> {
    let text = read(&root().join(ARCHITECTURE));
    let begin = format!("```{name}");
    let inside = text.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| *line != "```");
    let lines: Vec<String> = inside.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{ARCHITECTURE} has no block {begin}");
    lines
}

/// The lines `name: word word …` of a block.
fn table(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let row = |line: String| {
        let (name, words) = line.split_once(':').unwrap_or_else(|| panic!("{ARCHITECTURE}: no colon in {line:?}"));
        (name.trim().to_owned(), words.split_whitespace().map(str::to_owned).collect())
    };
    block(name).into_iter().map(row).collect()
}

/// A source file without its tests and comments; lines keep their numbers.
struct Source {
    file: String,
    module: String,
    text: String,
}

impl Source {
    fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for file in files("src", "rs", true) {
        let name = file.to_string_lossy().into_owned();
        let of_tests = name.contains("/tests/") || name.ends_with("_tests.rs") || TEST_PARTS.contains(&name.as_str());
        if of_tests {
            continue;
        }
        let module = file.components().nth(1).unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        let text = read(&root().join(&file));
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let bare = |line: &str| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() };
        let text = text.lines().map(bare).collect::<Vec<_>>().join("\n");
        found.push(Source { file: name, module, text });
    }
    found
}

/// The modules of this crate that a file names, each with the place and what is taken from it.
fn uses(source: &Source) -> Vec<(String, usize, String)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in source.text.match_indices("crate::") {
        let rest = &source.text[at + "crate::".len()..];
        let group = rest.strip_prefix('{').map(|inner| inner.split('}').next().unwrap_or_default());
        for path in group.map_or_else(|| vec![rest], |group| group.split(',').collect()) {
            let path = path.trim_start();
            let name: String = path.chars().take_while(|&c| is_word(c)).collect();
            let item = path[name.len()..].split(';').next().unwrap_or_default();
            // `crate::Error` and its kin are those of `error`.
            let name = if name.starts_with(|c: char| c.is_ascii_uppercase()) { "error".to_owned() } else { name };
            if !name.is_empty() {
                found.push((name, source.line_of(at), item.to_owned()));
            }
        }
    }
    found
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let allowed = table("imports");
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !matches!(source.module.as_str(), "main" | "lib")) {
        let (file, module) = (&source.file, &source.module);
        let Some(allowed) = allowed.get(module) else {
            problems.push(format!("{file}: {module} is not in the table of {ARCHITECTURE}"));
            continue;
        };
        for (used, line, _) in uses(source) {
            if used != *module && !allowed.contains(&used) && !allowed.contains("*") {
                problems.push(format!("{file}:{line}: {module} uses {used}, which {ARCHITECTURE} does not allow"));
            }
        }
    }
    fail(problems);
}

#[test]
fn what_must_stay_apart_stays_apart() {
    let allowed = table("imports");
    let mut problems = Vec::new();
    for (module, apart) in table("never") {
        let (mut reached, mut open) = (BTreeSet::new(), vec![module.clone()]);
        while let Some(next) = open.pop() {
            for used in allowed.get(&next).into_iter().flatten() {
                if reached.insert(used.clone()) {
                    open.push(used.clone());
                }
            }
        }
        let met = apart.intersection(&reached);
        problems.extend(met.map(|other| format!("{ARCHITECTURE}: by its table {module} can reach {other}")));
    }
    fail(problems);
}

#[test]
fn stages_do_not_call_each_other() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| STAGES.contains(&source.module.as_str())) {
        for (used, line, item) in uses(source) {
            let other = used != source.module && STAGES.contains(&used.as_str());
            let items = item.trim_start_matches("::").trim_matches(['{', '}']);
            let functions = items.split(',').map(str::trim).filter(|item| item.starts_with(char::is_lowercase));
            for function in functions.filter(|_| other) {
                problems.push(format!("{}:{line}: a stage takes {function} from the stage {used}", source.file));
            }
        }
    }
    fail(problems);
}

#[test]
fn nothing_below_cli_prints() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.module != "cli") {
        for print in PRINTS {
            let places = source.text.match_indices(print).map(|(at, _)| source.line_of(at));
            problems.extend(places.map(|line| format!("{}:{line}: {print} below cli; tell a Monitor", source.file)));
        }
    }
    fail(problems);
}

#[test]
fn writing_goes_through_durable() {
    let exceptions = block("writes");
    let exceptions: BTreeSet<&str> = exceptions.iter().filter_map(|line| line.split_whitespace().next()).collect();
    let (mut problems, mut used) = (Vec::new(), BTreeSet::new());
    let sources = sources();
    for source in &sources {
        for write in WRITES {
            for (at, _) in source.text.match_indices(write) {
                if exceptions.contains(source.file.as_str()) {
                    used.insert(source.file.as_str());
                } else {
                    let line = source.line_of(at);
                    problems.push(format!("{}:{line}: {write} outside of src/durable/disk.rs", source.file));
                }
            }
        }
    }
    problems.extend(
        exceptions.difference(&used).map(|file| format!("{ARCHITECTURE}: {file} is an exception and writes nothing")),
    );
    fail(problems);
}

#[test]
fn programs_are_started_in_two_places() {
    let starts = |source: &&Source| source.text.contains("Command::new(");
    let sources = sources();
    let found: BTreeSet<&str> = sources.iter().filter(starts).map(|source| source.file.as_str()).collect();
    assert_eq!(found, STARTS.into_iter().collect());
}
