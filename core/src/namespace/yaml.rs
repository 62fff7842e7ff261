//! YAML text to a tree whose every node knows its line: the common ground of namespace files and
//! the configuration file.
//!
//! Promises: bounded work and memory for any input (size, depth and node limits; anchors, aliases
//! and tags are refused, so nothing expands), no panic, and duplicate keys are found. Scalars stay
//! text: whoever knows the key decides what the text means, so `no` is a name where a name is asked
//! for. Leaves to others: which keys exist.

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::problem::Problem;

/// One value of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Line of its first character, from 1.
    pub line: u32,
    /// The value itself.
    pub value: Value,
}

/// Kind and content of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other single value, as written without its quotes.
    Scalar(String),
    /// `- a` or `[a]`.
    List(Vec<Node>),
    /// `a: b` or `{a: b}`, in the order of the file; duplicates have been dropped and reported.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as written, without quotes.
    pub key: String,
    /// Line of the key, from 1.
    pub line: u32,
    /// The key's value.
    pub value: Node,
}

/// Most bytes of a document.
pub const BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of lists and maps. The deepest legal namespace file needs 5.
pub const DEPTH_MAX: usize = 16;
/// Most values and keys in one document.
pub const NODES_MAX: usize = 10_000;

impl Node {
    /// Kind of the node, in words for an error message.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map of keys",
        }
    }
}

/// Reads one document. An empty document is `Null`.
///
/// # Errors
/// The syntax error, with line and column; or what makes the document too big or too clever.
/// Duplicate keys do not fail the parse: they are pushed to `problems` and the first value counts,
/// so that everything else is checked too.
pub fn parse(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    if text.len() > BYTES_MAX {
        let what = format!(
            "the file has {} bytes; at most {BYTES_MAX} (64 KiB) are allowed",
            text.len()
        );
        return Err(Problem::new("", 0, what));
    }
    let mut options = Options::default();
    options.disallow_directives = true;
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut builder = Builder {
        stack: Vec::new(),
        root: None,
        nodes: 0,
        problems,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => builder.handle(event, span)?,
            Err(error) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                let what = format!("not YAML, at line {line}, column {column}: {}", error.info());
                return Err(Problem::new("", line_number(line), what));
            }
        }
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

/// A list or map that has been opened and not yet closed.
enum Open {
    List {
        line: u32,
        path: String,
        items: Vec<Node>,
    },
    Map {
        line: u32,
        path: String,
        entries: Vec<Entry>,
        key: Option<(String, u32)>,
        skip: bool,
    },
}

impl Open {
    /// Field path of the value that comes next, for messages.
    fn next_path(&self) -> String {
        match self {
            Open::List { path, items, .. } => format!("{path}[{}]", items.len()),
            Open::Map { path, key, .. } => join(path, key.as_ref().map_or("", |(key, _)| key)),
        }
    }
}

/// Path of `key` within `parent`.
pub fn join(parent: &str, key: &str) -> String {
    match (parent, key) {
        ("", key) => key.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, key) => format!("{parent}.{key}"),
    }
}

struct Builder<'p> {
    stack: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    problems: &'p mut Vec<Problem>,
}

impl Builder<'_> {
    fn handle(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let line = line_number(span.start.line());
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(Problem::new(
                "",
                line,
                "a second document starts here; one file holds one document",
            )),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                Err(self.refuse(line, "aliases (*name) are not allowed; write the value out"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), line)?;
                let plain = matches!(style, ScalarStyle::Plain);
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                self.scalar(text.into_owned(), null, line)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), line)?;
                let path = self.open_path(line)?;
                self.push(
                    Open::List {
                        line,
                        path,
                        items: Vec::new(),
                    },
                    line,
                )
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), line)?;
                let path = self.open_path(line)?;
                self.push(
                    Open::Map {
                        line,
                        path,
                        entries: Vec::new(),
                        key: None,
                        skip: false,
                    },
                    line,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn refuse(&self, line: u32, what: &str) -> Problem {
        Problem::new(
            self.stack.last().map_or(String::new(), Open::next_path),
            line,
            what,
        )
    }

    /// Anchors and tags add nothing here but ways to surprise, so both are errors.
    fn refuse_extras(&self, anchor: usize, tagged: bool, line: u32) -> Result<(), Problem> {
        if anchor != 0 {
            return Err(self.refuse(
                line,
                "anchors (&name) are not allowed; write the value out where it is needed",
            ));
        }
        if tagged {
            return Err(self.refuse(line, "tags (!name) are not allowed; leave the tag out"));
        }
        Ok(())
    }

    /// Path of the list or map that starts here, which must not stand where a key is expected.
    fn open_path(&self, line: u32) -> Result<String, Problem> {
        match self.stack.last() {
            None => Ok(String::new()),
            Some(Open::Map { key: None, path, .. }) => Err(Problem::new(
                path.clone(),
                line,
                "a key must be a plain word, not a list or a map",
            )),
            Some(open) => Ok(open.next_path()),
        }
    }

    fn push(&mut self, open: Open, line: u32) -> Result<(), Problem> {
        self.count(line)?;
        if self.stack.len() >= DEPTH_MAX {
            return Err(self.refuse(
                line,
                &format!("nested too deeply; at most {DEPTH_MAX} levels are allowed"),
            ));
        }
        self.stack.push(open);
        Ok(())
    }

    fn count(&mut self, line: u32) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.refuse(line, &format!("too many values; at most {NODES_MAX} are allowed")));
        }
        Ok(())
    }

    fn scalar(&mut self, text: String, null: bool, line: u32) -> Result<(), Problem> {
        self.count(line)?;
        if let Some(Open::Map {
            key: key @ None,
            path,
            entries,
            skip,
            ..
        }) = self.stack.last_mut()
        {
            if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                let what = format!("this key stands twice; it was first given in line {}", first.line);
                self.problems.push(Problem::new(join(path, &text), line, what));
                *skip = true;
            }
            *key = Some((text, line));
            return Ok(());
        }
        let value = if null { Value::Null } else { Value::Scalar(text) };
        self.place(Node { line, value });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let node = match self.stack.pop() {
            Some(Open::List { line, items, .. }) => Node {
                line,
                value: Value::List(items),
            },
            Some(Open::Map { line, entries, .. }) => Node {
                line,
                value: Value::Map(entries),
            },
            None => {
                return Err(Problem::new(
                    "",
                    0,
                    "not YAML: a list or map ends that never started",
                ));
            }
        };
        self.place(node);
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map {
                entries, key, skip, ..
            }) => {
                if let Some((key, line)) = key.take()
                    && !std::mem::take(skip)
                {
                    entries.push(Entry {
                        key,
                        line,
                        value: node,
                    });
                }
            }
        }
    }
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        parse(text, &mut Vec::new())
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn reads_maps_lists_and_scalars_with_their_lines() {
        let node = parse("# top\na: 1\nb:\n- x\n- {y: 'null'}\nc:\n", &mut Vec::new()).unwrap();
        let Value::Map(entries) = &node.value else {
            panic!("not a map: {node:?}")
        };
        let lines: Vec<_> = entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.line))
            .collect();
        assert_eq!(lines, [("a", 2), ("b", 3), ("c", 6)]);
        let Value::List(items) = &entries[1].value.value else {
            panic!("not a list")
        };
        assert_eq!(
            items[0],
            Node {
                line: 4,
                value: Value::Scalar("x".into())
            }
        );
        let Value::Map(inner) = &items[1].value else {
            panic!("not a map")
        };
        assert_eq!(
            inner[0].value.value,
            Value::Scalar("null".into()),
            "quoted null is text"
        );
        assert_eq!(entries[2].value.value, Value::Null);
        assert_eq!(parse("", &mut Vec::new()).unwrap().value, Value::Null);
    }

    #[test]
    fn duplicate_keys_are_reported_and_the_first_counts() {
        let mut problems = Vec::new();
        let node = parse("a:\n  b: 1\n  b: {c: 2}\nd: 3\n", &mut problems).unwrap();
        assert_eq!(problems.len(), 1);
        assert_eq!(
            problems[0].to_string(),
            "line 3: a.b: this key stands twice; it was first given in line 2"
        );
        let Value::Map(entries) = &node.value else {
            panic!("not a map")
        };
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].value.value, {
            let value = Node {
                line: 2,
                value: Value::Scalar("1".into()),
            };
            Value::Map(vec![Entry {
                key: "b".into(),
                line: 2,
                value,
            }])
        });
    }

    #[test]
    fn what_could_explode_is_refused() {
        assert!(fails("a: &x [1]\nb: *x\n").contains("anchors (&name) are not allowed"));
        assert!(fails("a: *x\n").contains("unknown anchor") || fails("a: *x\n").contains("aliases"));
        assert!(fails("a: !!binary aGk=\n").contains("tags (!name) are not allowed"));
        assert!(fails(&"[".repeat(500)).contains("line 1"));
        assert!(fails(&"x".repeat(BYTES_MAX + 1)).contains("64 KiB"));
        assert!(fails("a: 1\n---\nb: 2\n").contains("one file holds one document"));
        assert!(fails("[a, b]: c\n").contains("a key must be a plain word"));
        assert!(fails(&"-\n".repeat(NODES_MAX + 1)).contains("too many values"));
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        let message = fails("a: 1\nb: [1, 2\nc: 3\n");
        assert!(
            message.starts_with("line ") && message.contains("column"),
            "{message}"
        );
        assert!(fails("a: \"unclosed\n").contains("not YAML, at line"));
        let message = fails("a:\n\tb: 2\n");
        assert!(message.contains("not YAML, at line 2"), "{message}");
    }

    #[test]
    fn no_prefix_or_mutation_of_a_file_panics() {
        let text = "namespace: a\nneeds:\n  x: [1, {b: 'c'}]\n- \"\u{1F600}\\u00e9\"\n";
        for end in 0..=text.len() {
            if text.is_char_boundary(end) {
                let _ = parse(&text[..end], &mut Vec::new());
            }
        }
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..20_000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = b" :-[]{}\n\t\"'&*!|>%@#,?ab\0\xff"[(state >> 20) as usize % 25];
            }
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = parse(text, &mut Vec::new());
            }
        }
    }
}
