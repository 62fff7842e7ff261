//! `prism status`: whether a gateway takes calls, and how it is doing.
//!
//! Readiness is the gateway's own answer to `/readyz`; the figures are those of its `/metrics`,
//! summed over the shards, so that this command and a monitoring system never disagree.

use prism_codec::method::{DeadLettersMethod, NamespacesMethod};
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::Client;
use prism_core::namespace::units::format_size;
use serde_json::json;

use super::output::Printer;
use super::{Exit, Failure, Global, connect};

pub(super) fn run(global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = connect(global)?;
    let (code, body) = text_page(&mut client, "/readyz")?;
    let reason = sentence(&body);
    let (_, metrics) = text_page(&mut client, "/metrics")?;
    let metrics = Metrics(&metrics);
    if !metrics.is_of_a_gateway() {
        let failure = Failure::new(
            Exit::Unreachable,
            format!("what answers at {} is no Prism gateway", global.server),
        );
        return Err(failure.solution("check that --server is the address of a Prism gateway"));
    }
    let ready = code == 200;
    let namespaces = namespaces(&mut client)?;
    let dead_letters = dead_letters(&mut client)?;
    let label = |name| metrics.label("prism_info", name).unwrap_or("unknown");
    let shards = metrics.values("prism_connections_open").count();
    let connections = metrics.sum("prism_connections_open");
    let waiting = metrics.sum("prism_calls_waiting");
    let (records, bytes) = (
        metrics.sum("prism_log_unapplied_records"),
        metrics.sum("prism_log_unapplied_bytes"),
    );
    if printer.is_json() {
        printer.json(&json!({
            "server": global.server,
            "ready": ready,
            "reason": if ready { "" } else { reason.as_str() },
            "version": label("version"),
            "driver": label("driver"),
            "shards": shards,
            "namespaces": namespaces,
            "connections": connections,
            "calls_waiting": waiting,
            "unapplied_records": records,
            "unapplied_bytes": bytes,
            "dead_letters": dead_letters,
        }))?;
    } else {
        let status = if ready {
            "ready".to_owned()
        } else {
            format!("not ready: {reason}")
        };
        let plural = if shards == 1 { "" } else { "s" };
        let lines = [
            ("Gateway", global.server.clone()),
            ("Status", status),
            (
                "Version",
                format!(
                    "{}, {shards} shard{plural} on {}",
                    label("version"),
                    label("driver")
                ),
            ),
            ("Namespaces", namespaces.to_string()),
            ("Connections", connections.to_string()),
            ("Calls waiting", waiting.to_string()),
            (
                "Log",
                format!("{records} records ({}) wait for the store", format_size(bytes)),
            ),
            ("Dead letters", dead_letters.to_string()),
        ];
        for (name, value) in lines {
            printer.line(&format!("{name}: {value}"))?;
        }
    }
    if ready {
        Ok(())
    } else {
        Err(Failure::silent(Exit::No))
    }
}

/// The sentence of an answer, which is an error in JSON or a line of text.
fn sentence(body: &str) -> String {
    let error: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = error.as_ref().and_then(|error| error["message"].as_str());
    message.unwrap_or(body).trim().to_owned()
}

fn text_page(client: &mut Client, path: &str) -> Result<(u16, String), Failure> {
    let (code, body) = client.page(path)?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

fn namespaces(client: &mut Client) -> Result<usize, Failure> {
    let mut count = 0;
    let mut page_token = Vec::new();
    loop {
        let request = admin::ListRequest {
            page_size: 1_000,
            page_token,
        };
        let reply: admin::ListResponse = client.unary(NamespacesMethod::List.spec().path, &request)?;
        count += reply.namespaces.len();
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return Ok(count);
        }
    }
}

fn dead_letters(client: &mut Client) -> Result<usize, Failure> {
    let (mut count, mut after) = (0, 0);
    loop {
        let request = admin::DeadLettersListRequest {
            namespace: String::new(),
            page_size: 1_000,
            after,
        };
        let reply: admin::DeadLettersListResponse =
            client.unary(DeadLettersMethod::List.spec().path, &request)?;
        count += reply.dead_letters.len();
        after = reply.next_after;
        if after == 0 {
            return Ok(count);
        }
    }
}

/// A page in Prometheus' text format.
struct Metrics<'a>(&'a str);

impl<'a> Metrics<'a> {
    fn is_of_a_gateway(&self) -> bool {
        self.label("prism_info", "version").is_some()
    }

    /// Labels and value of every sample of one family.
    fn samples(&self, family: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let family = family.to_owned();
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            (name == family).then_some((labels.trim_end_matches('}'), value))
        })
    }

    fn values(&self, family: &str) -> impl Iterator<Item = u64> {
        self.samples(family)
            .filter_map(|(_, value)| value.parse::<f64>().ok().map(|value| value as u64))
    }

    fn sum(&self, family: &str) -> u64 {
        self.values(family).sum()
    }

    /// One label of the first sample of a family.
    fn label(&self, family: &str, name: &str) -> Option<&'a str> {
        let (labels, _) = self.samples(family).next()?;
        labels.split(',').find_map(|label| {
            let (key, value) = label.split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_its_sentence() {
        assert_eq!(
            sentence("{\"code\":\"unavailable\",\"message\":\"draining\"}\n"),
            "draining"
        );
        assert_eq!(sentence("ready\n"), "ready");
    }

    #[test]
    fn figures_are_summed_over_the_shards() {
        let page = Metrics(
            "# HELP prism_info Version.\nprism_info{version=\"0.1.0\",driver=\"epoll\"} 1\n\
             prism_connections_open{shard=\"0\"} 2\nprism_connections_open{shard=\"1\"} 3\n\
             prism_connections_open_total{shard=\"1\"} 9\nprism_log_unapplied_bytes{shard=\"0\"} 1.5e3\n",
        );
        assert!(page.is_of_a_gateway());
        assert_eq!(page.label("prism_info", "driver"), Some("epoll"));
        assert_eq!(page.values("prism_connections_open").count(), 2);
        assert_eq!(page.sum("prism_connections_open"), 5);
        assert_eq!(page.sum("prism_log_unapplied_bytes"), 1_500);
        assert_eq!(page.sum("prism_nothing"), 0);
        assert!(!Metrics("<html>").is_of_a_gateway());
    }
}
