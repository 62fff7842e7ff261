//! Settings of the brokers that decide what an acknowledgement means.

use std::rc::Rc;
use std::time::Duration;

use rdkafka::admin::ConfigResource;

use super::cluster::Cluster;
use super::link::Link;
use super::topics;
use crate::error::StoreError;
use crate::offer::Acked;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Brokers that have a message when it is acknowledged, at least.
    copies: u64,
    /// Messages after which a broker syncs its file.
    flush_messages: u64,
    /// Time after which it does so; `None`: never.
    flush_after: Option<Duration>,
}

impl Settings {
    /// Reads the settings.
    pub(super) async fn read(cluster: &Cluster, link: &Rc<Link>) -> Result<Settings, StoreError> {
        let topic = topics::describe(cluster.config(), cluster.own()).await?;
        let replicas = topics::replicas(link, cluster.own()).await? as u64;
        let mut looks_each = Some(0);
        for broker in topics::brokers(link, cluster.own()).await? {
            let broker = topics::describe_broker(cluster.config(), broker).await?;
            let each = time(&broker, "log.flush.scheduler.interval.ms");
            looks_each = looks_each.zip(each).map(|(most, each)| most.max(each));
        }
        // A broker looks at that pause for files that were not synced for so long.
        let flush_after = time(&topic, "flush.ms")
            .zip(looks_each)
            .map(|(after, each)| after + each);
        Ok(Settings {
            copies: number(&topic, "min.insync.replicas").unwrap_or(1).min(replicas),
            flush_messages: number(&topic, "flush.messages").unwrap_or(u64::MAX),
            flush_after: flush_after.map(Duration::from_millis),
        })
    }

    /// Whether a message is safe when it is acknowledged.
    fn is_safe_at_once(self) -> bool {
        self.copies >= 2 || self.flush_messages <= 1
    }

    /// Time after its acknowledgement at which a message is safe.
    pub(super) fn safe_after(self) -> Duration {
        match self.is_safe_at_once() {
            true => Duration::ZERO,
            false => self.flush_after.unwrap_or_default(),
        }
    }

    /// Reason why an acknowledgement means less than `needed`.
    pub(super) fn shortfall(self, needed: Acked, address: &str) -> Option<String> {
        if needed == Acked::Volatile || self.is_safe_at_once() || self.flush_after.is_some() {
            return None;
        }
        Some(format!(
            "kafka at {address} keeps one replica and never flushes (log.flush.interval.ms and \
             log.flush.scheduler.interval.ms are not set), so the log could never be given back; set them, or use three brokers"
        ))
    }
}

fn number(resource: &ConfigResource, name: &str) -> Option<u64> {
    resource.get(name)?.value.as_ref()?.parse().ok()
}

/// A time in milliseconds; `None` where it is the end of time, which means never.
fn time(resource: &ConfigResource, name: &str) -> Option<u64> {
    number(resource, name).filter(|millis| *millis < i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_safe_with_two_copies_or_once_it_is_synced() {
        let never = Settings {
            copies: 1,
            flush_messages: i64::MAX as u64,
            flush_after: None,
        };
        let second = Duration::from_secs(1);
        let cases = [
            (Settings { copies: 2, ..never }, Some(Duration::ZERO)),
            (
                Settings {
                    flush_messages: 1,
                    ..never
                },
                Some(Duration::ZERO),
            ),
            (
                Settings {
                    flush_after: Some(second),
                    ..never
                },
                Some(second),
            ),
            (never, None),
        ];
        for (settings, safe_after) in cases {
            let why = settings.shortfall(Acked::Durable, "a:1");
            assert_eq!(why.is_none(), safe_after.is_some(), "{settings:?}");
            assert_eq!(settings.shortfall(Acked::DurableOnSync, "a:1"), why);
            assert_eq!(settings.shortfall(Acked::Volatile, "a:1"), None);
            assert_eq!(settings.safe_after(), safe_after.unwrap_or_default());
        }
    }
}
