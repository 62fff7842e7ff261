//! Combinations in a namespace file that no gateway could keep, whatever the store: each key is
//! legal, both together are not. Reported like every other problem, with the line of the key that
//! gives way.

use std::time::Duration;

use super::file::FileParser;
use super::model::{ClientApi, Compliance, Consistency, Durability, NamespaceConfig, Policies, Switch};
use super::units::{format_duration, format_size};
use super::values::VALUE_SUGGESTION;

/// A retention to name where there is none.
const RETENTION_EXAMPLE: Duration = Duration::from_secs(7 * 86_400);

impl FileParser<'_> {
    /// Reports what no gateway could keep, whatever the store.
    pub(super) fn check_combinations(&mut self, config: &NamespaceConfig) {
        let (needs, api) = (&config.needs, config.client_api);
        let messages = matches!(api, ClientApi::PubSub | ClientApi::Queue | ClientApi::TimeSeries);
        if let (Some(ttl), Some(retention)) = (needs.ttl, needs.retention)
            && ttl > retention
        {
            let (ttl, retention) = (format_duration(ttl), format_duration(retention));
            let what = format!(
                "ttl ({ttl}) is longer than retention ({retention}), after which the data is gone anyway"
            );
            self.combination(
                "needs.ttl",
                what,
                &format!("write \"{retention}\" or less, or a longer retention"),
            );
        }
        if needs.ttl.is_some() && !matches!(api, ClientApi::KeyValue | ClientApi::PubSub | ClientApi::Queue) {
            let what = format!(
                "client_api {api} has no items that expire one by one; ttl is for keyvalue, pubsub and queue"
            );
            self.combination("needs.ttl", what, "use needs.retention");
        }
        if needs.ordered == Some(true) && !messages {
            let what = format!(
                "client_api {api} has no message order to keep; ordered is for pubsub, queue and timeseries"
            );
            self.combination("needs.ordered", what, "leave it out");
        }
        if needs.replay == Some(true) {
            if !messages {
                let what = format!(
                    "client_api {api} has no messages to replay; replay is for pubsub, queue and timeseries"
                );
                self.combination("needs.replay", what, "leave it out");
            } else if needs.retention.is_none() {
                // No shorter than the ttl, or that would be refused next.
                let example = needs.ttl.unwrap_or_default().max(RETENTION_EXAMPLE);
                self.combination(
                    "needs.replay",
                    "replay needs a retention: how far back?".into(),
                    &format!("add needs.retention, for example {}", format_duration(example)),
                );
            }
        }
        if let (Some(message), Some(data)) = (needs.max_message_size, needs.data_size)
            && message > data
        {
            let (message, data) = (format_size(message), format_size(data));
            let what = format!(
                "max_message_size ({message}) is larger than data_size ({data}), the size of all data"
            );
            self.combination("needs.max_message_size", what, "");
        }
        if config.durability() == Durability::BestEffort {
            self.best_effort_combinations(config, messages);
        } else if let Some(message) = needs.max_message_size
            && message > self.limits.logged_value_bytes_max
        {
            let (message, limit) = (
                format_size(message),
                format_size(self.limits.logged_value_bytes_max),
            );
            let what = format!(
                "Requested max_message_size ({message}) exceeds limit ({limit}) of durability {}, \
                 whose writes go through the log",
                config.durability()
            );
            self.combination("needs.max_message_size", what, VALUE_SUGGESTION);
        }
        self.policy_combinations(&config.policies);
        if self.limits.is_strict {
            self.preset_combinations(config);
        }
    }

    fn best_effort_combinations(&mut self, config: &NamespaceConfig, messages: bool) {
        if config.client_api == ClientApi::Transact {
            let what = "a transaction that may be lost after its commit was acknowledged is none; \
                        client_api transact needs durability strong or eventual";
            self.combination("needs.durability", what.into(), "write \"strong\"");
        }
        if messages && config.needs.consistency == Some(Consistency::Strong) {
            let what = format!(
                "best-effort {} acknowledges before the store has the message, so reads cannot be strongly consistent",
                config.client_api
            );
            self.combination(
                "needs.consistency",
                what,
                "use consistency: eventual, or durability: eventual or strong",
            );
        }
    }

    fn policy_combinations(&mut self, policies: &Policies) {
        for standard in &policies.compliance {
            let audits = *standard != Compliance::Gdpr;
            if audits && policies.audit_logging == Some(Switch::Disabled) {
                let what = format!("compliance {standard} demands an audit trail");
                self.combination(
                    "policies.audit_logging",
                    what,
                    "write \"enabled\" or leave it out",
                );
            }
            let personal = *standard != Compliance::Sox;
            if personal && policies.pii_handling == Some(Switch::Disabled) {
                let what = format!("compliance {standard} demands that personal data is handled");
                self.combination("policies.pii_handling", what, "write \"enabled\" or leave it out");
            }
        }
    }

    /// Needs that a compliance standard does not leave open.
    fn preset_combinations(&mut self, config: &NamespaceConfig) {
        let needs = &config.needs;
        for standard in &config.policies.compliance {
            let what = match standard {
                Compliance::Gdpr if needs.retention.is_none() => {
                    "compliance gdpr needs an end: declare needs.retention"
                }
                Compliance::Hipaa if needs.retention.is_none() => {
                    "compliance hipaa needs a declared retention"
                }
                Compliance::Sox if config.durability() == Durability::BestEffort => {
                    let what = "compliance sox keeps no records at durability best-effort";
                    self.combination("needs.durability", what.into(), "write \"strong\"");
                    continue;
                }
                _ => continue,
            };
            self.combination("needs.retention", what.into(), "");
        }
    }

    fn combination(&mut self, path: &str, what: String, suggestion: &str) {
        let line = self.lines.get(path).copied().unwrap_or(0);
        self.push(path, line, what, suggestion);
    }
}
