//! Topics and their patterns: what is legal, and which pattern takes which topic.

/// Whether a text is a topic: tokens joined by single dots, or empty, the namespace's own topic. A
/// token has no space, control character, dot, `*` or `>`. Says nothing about its length.
pub fn is_topic(text: &str) -> bool {
    text.is_empty() || text.split('.').all(is_token)
}

/// Whether a text is a pattern: a topic in which a token may be `*`, and the last one `>`. The
/// empty pattern takes the empty topic alone.
pub fn is_pattern(text: &str) -> bool {
    let mut tokens = text.split('.').peekable();
    let mut legal = true;
    while let Some(token) = tokens.next() {
        legal &= match token {
            "*" => true,
            ">" => tokens.peek().is_none(),
            token => is_token(token),
        };
    }
    text.is_empty() || legal
}

fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token
            .chars()
            .all(|letter| !letter.is_whitespace() && !letter.is_control() && !matches!(letter, '*' | '>'))
}

/// Whether a legal pattern takes a legal topic: `*` stands for one token, `>` at the end for one or
/// more.
///
/// ```
/// use prism_codec::message::pubsub::topic::matches;
/// assert!(matches("orders.*.created", "orders.eu.created"));
/// assert!(matches("orders.>", "orders.eu.created"));
/// assert!(!matches("orders.>", "orders"));
/// assert!(!matches("orders.*", "orders.eu.created"));
/// ```
pub fn matches(pattern: &str, topic: &str) -> bool {
    if pattern.is_empty() || topic.is_empty() {
        return pattern == topic;
    }
    let (mut patterns, mut tokens) = (pattern.split('.'), topic.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_tokens_joined_by_dots() {
        for legal in ["", "login", "orders.eu.created", "käse.€", "a-b_c/d", "#"] {
            assert!(is_topic(legal) && is_pattern(legal), "{legal:?}");
        }
        for illegal in [".", "a.", ".a", "a..b", "a b", "a\tb", "a\u{0}", "a\u{a0}b"] {
            assert!(!is_topic(illegal) && !is_pattern(illegal), "{illegal:?}");
        }
        for pattern in ["*", ">", "a.*", "a.>", "*.*.>", "*.a"] {
            assert!(!is_topic(pattern) && is_pattern(pattern), "{pattern:?}");
        }
        for neither in ["a*", "*a", "a>", ">.a", "a.>.b", "a.>>", "**"] {
            assert!(!is_topic(neither) && !is_pattern(neither), "{neither:?}");
        }
    }

    #[test]
    fn patterns_take_whole_topics() {
        let takes: [(&str, &[&str]); 8] = [
            ("", &[""]),
            ("*", &["a", "b"]),
            (">", &["a", "b", "a.b", "a.b.c"]),
            ("a", &["a"]),
            ("a.*", &["a.b"]),
            ("a.>", &["a.b", "a.b.c"]),
            ("*.b", &["a.b"]),
            ("*.b.>", &["a.b.c"]),
        ];
        for (pattern, taken) in takes {
            for topic in ["", "a", "b", "a.b", "a.b.c"] {
                assert_eq!(
                    matches(pattern, topic),
                    taken.contains(&topic),
                    "{pattern:?} {topic:?}"
                );
            }
        }
    }
}
