//! A reader of Rust source that knows just enough for the rules: words, comments, literals and
//! imports.

/// Whether the line holds the word by itself.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|part| part == word)
}

/// The names directly under `crate::`, in paths and in import groups, with their line numbers.
pub(crate) fn names_of_the_crate(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, found_root) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + found_root.len()..];
        let group = rest.starts_with('{');
        let (mut depth, mut name, mut wanted) = (0, String::new(), !group);
        let mut line = code[..at].matches('\n').count() + 1;
        for c in rest.chars() {
            if wanted && (c.is_alphanumeric() || c == '_') {
                name.push(c);
                continue;
            }
            if !name.is_empty() {
                found.push((line, std::mem::take(&mut name)));
                wanted = false;
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                '\n' => line += 1,
                _ => {}
            }
            wanted |= depth == 1 && (c == '{' || c == ',');
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// The code with comments and the insides of literals blanked; lines keep their numbers.
pub(crate) fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = literal_or_comment_len(rest, out.chars().next_back());
        if taken == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.push(' ');
            out.extend(rest[..taken].chars().filter(|c| *c == '\n'));
            rest = &rest[taken..];
        }
    }
    out
}

/// The length of the comment or literal with which the text starts; 0 if it starts with something
/// else.
fn literal_or_comment_len(text: &str, before: Option<char>) -> usize {
    let until = |end: &str, from: usize| {
        text[from..]
            .find(end)
            .map_or(text.len(), |at| from + at + end.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until("*/", 2);
    }
    if text.starts_with('"') {
        return quoted_len(text);
    }
    let in_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !in_a_word && text.starts_with('r') {
        let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
        if text[1 + hashes..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(hashes)), 2 + hashes);
        }
    }
    if let Some(rest) = text.strip_prefix('\'') {
        // A character, not a lifetime: one (maybe escaped) character and the closing quote.
        let mut inside = rest.char_indices();
        let escaped = inside.next().is_some_and(|(_, c)| c == '\\');
        let close = if escaped {
            text[2..].find('\'').map(|at| at + 2)
        } else {
            inside.next().map(|(at, _)| at + 1)
        };
        return close
            .filter(|at| text[*at..].starts_with('\''))
            .map_or(0, |at| at + 1);
    }
    0
}

fn quoted_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn the_reader_of_rust_knows_code_from_comments_and_strings() {
    let text = "// unsafe\nlet a = \"unsafe \\\" unsafe\"; /* unsafe\n */ unsafe { b('\"', 'x', &'a r#\"unsafe\"#) }";
    let code = without_comments_and_strings(text);
    assert_eq!(
        code.lines()
            .map(|line| has_word(line, "unsafe"))
            .collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(code.matches("unsafe").count(), 1, "{code}");
}

#[test]
fn the_reader_of_imports_knows_groups_and_paths() {
    let code = "use crate::call::job::Job;\nuse crate::{\n    api::keyvalue::{self, Request},\n    log::{open::X, Y},\n};\nfn f() { crate::metrics::g(other_crate::h(), $crate::i()) }";
    let expected = [(1, "call"), (3, "api"), (4, "log"), (6, "metrics")];
    let found = names_of_the_crate(code);
    assert!(
        found
            .iter()
            .map(|(line, name)| (*line, name.as_str()))
            .eq(expected),
        "{found:?}"
    );
}
