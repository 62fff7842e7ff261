//! Bounds of files and functions.

use crate::{Problems, files_ending, read, rust::without_comments_and_strings};

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 90;

/// Files that are longer, with a bound of their own: they may not grow.
const LONGER: &[(&str, usize)] = &[("backends/src/memory/mod.rs", 712)];

#[test]
fn rust_files_are_small_and_say_what_they_are() {
    let mut problems = Problems::default();
    for file in files_ending(".rs") {
        let text = read(&file);
        let lines = text.lines().count();
        let known = LONGER.iter().find(|(longer, _)| *longer == file);
        let max = known.map_or(FILE_LINES_MAX, |(_, max)| *max);
        if lines > max {
            problems.add(
                &file,
                format!("{lines} lines; the maximum is {max}: split it by responsibility"),
            );
        }
        if known.is_some() && lines <= FILE_LINES_MAX {
            problems.add(
                &file,
                "is as short as all others: remove its entry in core/tests/tidy/sizes.rs",
            );
        }
        if !text.starts_with("//! ") {
            problems.add(
                &file,
                "must open with `//! `: what it is, what it promises, what it leaves to others",
            );
        }
        if text.starts_with("//! placeholder") {
            problems.add(&file, "is still a placeholder: write it or remove it");
        }
    }
    problems.report();
}

/// Tests may be longer: most of such functions are one table.
#[test]
fn functions_fit_a_screen_or_little_more() {
    let mut problems = Problems::default();
    for file in files_ending(".rs") {
        if file.contains("/tests/") || file.ends_with("tests.rs") {
            continue;
        }
        let text = read(&file);
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, name, lines) in functions(&without_comments_and_strings(code)) {
            if lines > FUNCTION_LINES_MAX {
                problems.add(
                    &format!("{file}:{number}"),
                    format!("`{name}` has {lines} lines; the maximum is {FUNCTION_LINES_MAX}: cut it"),
                );
            }
        }
    }
    problems.report();
}

/// Functions with a body: line, name, and number of lines. Formatted code closes each with a brace
/// in the column of its first line.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = name_of_function(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let is_end = |line: &&str| {
            line.starts_with(indent)
                && (line.trim_end() == closing
                    || (!line[indent.len()..].starts_with(' ') && line.ends_with(';')))
        };
        let is_in_one_line = line.trim_end().ends_with('}');
        let end = lines[number..].iter().position(is_end).unwrap_or_default();
        found.push((
            number + 1,
            name.to_owned(),
            if is_in_one_line { 1 } else { end + 1 },
        ));
    }
    found
}

/// The name of the function that begins in a line.
fn name_of_function(line: &str) -> Option<&str> {
    let (before, rest) = line.trim_start().split_once("fn ")?;
    let is_qualifier =
        |word: &str| matches!(word, "const" | "async" | "unsafe" | "extern") || word.starts_with("pub");
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (before.split_whitespace().all(is_qualifier) && !name.is_empty()).then_some(name)
}

#[test]
fn the_reader_of_functions_counts_their_lines() {
    let code = "\
fn one() {
    let f = |x: fn(u8)| {
        x(1);
    };
}
pub(crate) const fn short() -> u8 { 1 }

trait T {
    fn without_body(&self) -> u8;

    async fn two(
        &self,
    ) -> u8 {
        1
    }
}
";
    let found = functions(code);
    let found: Vec<_> = found
        .iter()
        .map(|(line, name, lines)| (*line, name.as_str(), *lines))
        .collect();
    assert_eq!(found[0], (1, "one", 5));
    assert!(found.contains(&(6, "short", 1)));
    assert!(found.contains(&(9, "without_body", 1)));
    assert!(found.contains(&(11, "two", 5)));
}
