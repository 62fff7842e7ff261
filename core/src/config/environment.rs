//! Environment variables with our prefix: the known ones, and suggestions for the others.

use super::KEYS;
use crate::namespace::problem::nearest;

/// The prefix of all our variables.
pub const PREFIX: &str = "PRISM_";

/// Variables without a key: those of the command line.
const OTHERS: [&str; 7] = [
    "PRISM_CONFIG",
    "PRISM_SERVER",
    "PRISM_OUTPUT",
    "PRISM_TIMEOUT",
    "PRISM_CA",
    "PRISM_CERT",
    "PRISM_CERT_KEY",
];

/// A sentence for each unknown variable with our prefix, with the one that may have been meant.
/// Variables that Kubernetes sets for a service of our name are silent.
pub fn unknown_variables(environment: &[(String, String)]) -> Vec<String> {
    let is_known = |name: &str| {
        OTHERS.contains(&name) || KEYS.iter().any(|key| key.env == name) || name.starts_with("PRISM_TEST_")
    };
    environment
        .iter()
        .filter(|(name, value)| name.starts_with(PREFIX) && !is_known(name) && !is_of_kubernetes(name, value))
        .map(|(name, _)| describe(name))
        .collect()
}

fn describe(name: &str) -> String {
    // Compared without the prefix, which they all share.
    let plain = |name: &'static str| name.trim_start_matches(PREFIX);
    let known: Vec<_> = KEYS.iter().map(|key| key.env).chain(OTHERS).map(plain).collect();
    let advice = match nearest(name.trim_start_matches(PREFIX), &known) {
        Some(nearest) => format!("did you mean {PREFIX}{nearest}?"),
        None => "`prism config print` lists those of the keys".to_owned(),
    };
    format!("the environment variable {name} means nothing to Prism and is ignored; {advice}")
}

/// Whether Kubernetes sets this variable for a service whose name begins with ours (its
/// documentation, "Accessing the Service": environment variables, also in the form of Docker's
/// links).
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    if name.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    name.match_indices("_PORT_").any(|(at, word)| {
        let mut parts = name[at + word.len()..].split('_');
        let number = parts.next().unwrap_or_default();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(variables: &[(&str, &str)]) -> Vec<String> {
        let owned: Vec<_> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        unknown_variables(&owned)
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest() {
        for (written, meant) in [
            ("PRISM_DATADIR", "PRISM_DATA_DIR"),
            ("PRISM_LIMIT_DRAIN_TIMEOUT", "PRISM_LIMITS_DRAIN_TIMEOUT"),
            ("PRISM_SERVR", "PRISM_SERVER"),
            ("PRISM_PORT", "means nothing"),
            ("PRISM_COLOUR_OF_MY_CAT", "prism config print"),
        ] {
            let said = unknown(&[(written, "8980")]);
            assert_eq!(said.len(), 1, "{written}");
            assert!(
                said[0].contains(written) && said[0].contains(meant),
                "{}",
                said[0]
            );
        }
    }

    #[test]
    fn known_variables_and_those_of_kubernetes_are_silent() {
        let silent = [
            ("PRISM_DATA_DIR", "data"),
            ("PRISM_SERVER", "127.0.0.1:1"),
            ("PATH", "/bin"),
            ("PRISM_SERVICE_HOST", "10.0.0.11"),
            ("PRISM_SERVICE_PORT", "8980"),
            ("PRISM_SERVICE_PORT_GRPC", "8980"),
            ("PRISM_PORT", "tcp://10.0.0.11:8980"),
            ("PRISM_PORT_8980_TCP", "tcp://10.0.0.11:8980"),
            ("PRISM_PORT_8980_TCP_PROTO", "tcp"),
            ("PRISM_PORT_8980_TCP_PORT", "8980"),
            ("PRISM_PORT_8980_TCP_ADDR", "10.0.0.11"),
            ("PRISM_GATEWAY_SERVICE_HOST", "10.0.0.11"),
            ("PRISM_GATEWAY_PORT_8980_UDP_ADDR", "10.0.0.11"),
        ];
        assert_eq!(unknown(&silent), Vec::<String>::new());
    }
}
