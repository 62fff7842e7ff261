//! Faults of a file, described so that its author can mend it: where, what, what is allowed, and a
//! guess.
//!
//! Checks push [`Problem`]s and go on, so that one run reports all of them.

use std::fmt;

/// Type of the `Problem` details within a refusal.
pub const PROBLEM_TYPE_URL: &str = "type.googleapis.com/prism.admin.v1.Problem";

/// One thing that is wrong with a namespace file or a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, for example `needs.durability` or `access.consumers[1].permissions`.
    /// Empty: the whole file.
    pub field: String,
    /// Fault and what is allowed. One sentence without a full stop.
    pub description: String,
    /// Advice on what to write or do instead; empty where there is no good guess.
    pub suggestion: String,
    /// Line in the file, from 1; 0 if unknown.
    pub line: u32,
}

impl Problem {
    /// A problem without a suggestion.
    pub fn new(field: impl Into<String>, line: u32, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
            suggestion: String::new(),
            line,
        }
    }

    /// The same with a suggestion; an empty one changes nothing.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = suggestion.into();
        self
    }
}

impl fmt::Display for Problem {
    /// `line 7: needs.durability: … (did you mean …?)`, leaving out what is not known.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(formatter, "line {}: ", self.line)?;
        }
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.description)?;
        if !self.suggestion.is_empty() {
            write!(formatter, " ({})", self.suggestion)?;
        }
        Ok(())
    }
}

/// Faults of all problems in one line.
pub fn descriptions(problems: &[Problem]) -> String {
    let all: Vec<_> = problems
        .iter()
        .map(|problem| problem.description.as_str())
        .collect();
    all.join("; ")
}

/// Advice for all problems in one line, each once.
pub fn suggestions(problems: &[Problem]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for problem in problems {
        let suggestion = problem.suggestion.as_str();
        if !suggestion.is_empty() && !all.contains(&suggestion) {
            all.push(suggestion);
        }
    }
    all.join("; ")
}

/// `did you mean "x"?` for the candidate nearest to what was written, or nothing if none is near.
///
/// Near is a Damerau-Levenshtein distance of at most a third of the longer word's length (and
/// always 1 for words of 3 letters or more). Case and the choice of `-`, `_` or space cost nothing.
/// Where none is, the one that begins with the written word is near.
pub fn did_you_mean(written: &str, candidates: &[&str]) -> String {
    nearest(written, candidates).map_or_else(String::new, |best| format!("did you mean \"{best}\"?"))
}

/// The candidate nearest to what was written, if one is near.
pub fn nearest<'c>(written: &str, candidates: &[&'c str]) -> Option<&'c str> {
    // Distance is quadratic in the length, and no key or choice is anywhere near this long.
    if written.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['_', ' '], "-");
    let written = plain(written);
    // `pii` means pii_handling, if it begins no other one.
    let mut longer = candidates.iter().filter(|candidate| {
        let rest = plain(candidate).strip_prefix(&*written).map(str::to_owned);
        written.len() > 2 && rest.is_some_and(|rest| rest.starts_with('-'))
    });
    let only_longer = longer.next().filter(|_| longer.next().is_none());
    candidates
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&written, &plain(candidate)),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len().max(written.len()) / 3).max(usize::from(written.len() > 2))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or(only_longer.copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["best-effort", "eventual", "strong"];
        assert_eq!(nearest("strng", &words), Some("strong"));
        assert_eq!(nearest("Best_Effort", &words), Some("best-effort"));
        assert_eq!(nearest("evantual", &words), Some("eventual"));
        assert_eq!(nearest("none", &words), None);
        assert_eq!(
            nearest("pii", &["pii_handling", "audit_logging"]),
            Some("pii_handling")
        );
        assert_eq!(nearest("max", &["max_size", "max_rate"]), None, "either of two");
        assert_eq!(nearest("", &words), None);
        assert_eq!(nearest(&"s".repeat(100_000), &words), None);
    }

    #[test]
    fn display_leaves_out_what_is_unknown() {
        assert_eq!(Problem::new("", 0, "bad").to_string(), "bad");
        assert_eq!(
            Problem::new("a.b", 3, "bad").suggest("do c").to_string(),
            "line 3: a.b: bad (do c)"
        );
    }
}
