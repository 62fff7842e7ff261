//! Rules of prose that a machine can check: how doc comments begin, how wide comments are, and that
//! the page of requirements names tests that exist.

use std::path::{Path, PathBuf};

use crate::{Problems, files_ending, read, root};

/// Widest line of a comment, in characters.
const COMMENT_COLUMNS_MAX: usize = 100;

/// Words that begin a doc comment before its subject is known.
const FIRST_WORDS_AVOIDED: [&str; 4] = ["What", "Whose", "Its", "See"];

#[test]
fn comments_begin_with_their_subject_and_fit_the_page() {
    let mut problems = Problems::default();
    for file in files_ending(".rs") {
        for (line, advice) in faults(&read(&file)) {
            problems.add(&format!("{file}:{line}"), advice);
        }
    }
    problems.report();
}

/// Line number and remedy for each comment that breaks a rule.
fn faults(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut in_doc, mut in_drawing) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let comment = line.trim_start();
        let words = comment.trim_start_matches(['/', '!']).trim_start();
        let is_comment = comment.starts_with("//");
        if is_comment && words.starts_with("```") {
            in_drawing = !in_drawing;
        }
        in_drawing &= is_comment;
        // A drawing or a table cannot be wrapped.
        let prose = is_comment && !in_drawing && !words.starts_with('|');
        if prose && line.chars().count() > COMMENT_COLUMNS_MAX {
            let advice = format!(
                "a comment of {} columns: wrap it at {COMMENT_COLUMNS_MAX}",
                line.chars().count()
            );
            found.push((index + 1, advice));
        }
        let doc = comment
            .strip_prefix("///")
            .or_else(|| comment.strip_prefix("//!"));
        if let Some(doc) = doc
            && !in_doc
        {
            let first = doc
                .trim_start()
                .split(|letter: char| !letter.is_alphanumeric())
                .next();
            if let Some(first) = first.filter(|first| FIRST_WORDS_AVOIDED.contains(first)) {
                let advice = format!(
                    "a doc comment begins with a noun or a verb in the third person, not with {first:?}"
                );
                found.push((index + 1, advice));
            }
        }
        in_doc = doc.is_some();
    }
    found
}

#[test]
fn the_tests_that_requirements_name_exist() {
    const PAGE: &str = "docs/REQUIREMENTS.md";
    let mut problems = Problems::default();
    let mut named = 0;
    for (index, line) in read(PAGE).lines().enumerate() {
        let place = format!("{PAGE}:{}", index + 1);
        for code in line.split('`').skip(1).step_by(2) {
            let (file, test) = code
                .split_once("::")
                .map_or((code, None), |(file, test)| (file, Some(test)));
            if test.is_none() && !is_a_path(file) {
                continue;
            }
            named += 1;
            if !root().join(file).is_file() {
                problems.add(&place, format!("`{file}` is not there"));
            } else if let Some(test) = test
                && !defines(&read(file), test)
            {
                problems.add(&place, format!("{file} has no test `{test}`"));
            }
        }
    }
    assert!(named > 40, "only {named} tests were found on the page");
    problems.report();
}

/// Whether `code` is the path of a file below one of the project's folders.
fn is_a_path(code: &str) -> bool {
    let below =
        |folder: &str| Path::new(code).starts_with(folder) && PathBuf::from(code).components().count() > 1;
    [
        "clients", "core", "stack", "wal", "backends", "codec", "loadgen", "bench",
    ]
    .iter()
    .any(|folder| below(folder))
}

/// Whether a file in Rust, Python or Go defines a function of that name.
fn defines(text: &str, name: &str) -> bool {
    ["fn", "def", "func"]
        .iter()
        .any(|keyword| text.contains(&format!("{keyword} {name}(")))
}

#[test]
fn the_reader_of_comments_finds_what_breaks_the_rules() {
    let wide = format!("// {}", "x".repeat(98));
    let text = format!(
        "//! What it is.\n{wide}\n/// Whose.\nfn f() {{}}\n/// A noun.\n/// What follows is no first word.\n"
    );
    let lines: Vec<_> = faults(&text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 2, 3]);
    let fits = format!("// {}\nlet text = \"{}\";\n", "x".repeat(97), "y".repeat(200));
    assert!(faults(&fits).is_empty());
    let drawing = format!(
        "/// A table.\n/// | {} |\n/// ```text\n{wide}\n/// ```\n{wide}\n",
        "x".repeat(100)
    );
    let lines: Vec<_> = faults(&drawing).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [6]);
}
