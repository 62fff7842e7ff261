//! `prism namespace status`, `metrics` and `cost`: how a namespace is doing. The lines are those of
//! the user's guide, in its order and spelling.

use std::io::{IsTerminal as _, stdout};
use std::thread::sleep;
use std::time::Duration;

use prism_codec::method::NamespacesMethod;
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::Client;
use prism_core::namespace::units::format_size_rounded;
use serde_json::{Value, json};

use crate::cli::output::{Printer, show_time};
use crate::cli::{Failure, Global, connect};

/// Time between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

fn ask(client: &mut Client, name: &str) -> Result<admin::StatusResponse, Failure> {
    let request = admin::StatusRequest {
        name: name.to_owned(),
    };
    Ok(client.unary(NamespacesMethod::Status.spec().path, &request)?)
}

pub(super) fn status(name: &str, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let status = ask(&mut connect(global)?, name)?;
    if printer.is_json() {
        return printer.json(&status_json(&status));
    }
    let capacity = |declared: u64| match declared {
        0 => "no capacity declared".to_owned(),
        declared => format!("capacity: {declared}"),
    };
    let storage = match status.data_size_declared {
        0 => "not measured".to_owned(),
        declared => format!("not measured / {}", format_size_rounded(declared)),
    };
    printer.line(&format!("Namespace: {}", status.name))?;
    printer.line(&format!("Status: {}", status.status))?;
    printer.line(&format!("Backend: {}", status.backend))?;
    printer.line(&format!("Consumers: {} active", status.streams))?;
    printer.line(&format!(
        "Write RPS: {:.0} ({})",
        status.write_rps,
        capacity(status.write_rps_declared)
    ))?;
    printer.line(&format!(
        "Read RPS: {:.0} ({})",
        status.read_rps,
        capacity(status.read_rps_declared)
    ))?;
    printer.line(&format!("Storage: {storage}"))?;
    if !status.reason.is_empty() {
        printer.line(&format!("Backend health: {} ({})", status.status, status.reason))?;
    }
    if status.limited > 0 {
        printer.line(&format!("Limited: {} times in the last minute", status.limited))?;
    }
    Ok(())
}

pub(super) fn metrics(
    name: &str,
    watch: bool,
    global: &Global,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut client = connect(global)?;
    let redraws = watch && stdout().is_terminal() && !printer.is_json();
    let mut lines = Vec::new();
    loop {
        let status = ask(&mut client, name)?;
        if printer.is_json() {
            printer.json(&status_json(&status))?;
        } else {
            if redraws && !lines.is_empty() {
                // Back to the first line of the last look.
                printer.raw(format!("\x1b[{}F\x1b[J", lines.len()).as_bytes())?;
            }
            lines = metrics_lines(&status);
            for line in &lines {
                printer.line(line)?;
            }
        }
        if !watch {
            return Ok(());
        }
        printer.finish()?;
        sleep(WATCH_EVERY);
    }
}

fn metrics_lines(status: &admin::StatusResponse) -> Vec<String> {
    let latency = match status.p99_seconds > 0.0 {
        true => format!("{} / {}", millis(status.p50_seconds), millis(status.p99_seconds)),
        false => "no calls in the last minute".to_owned(),
    };
    let percent = match status.calls {
        0 => 0.0,
        calls => 100.0 * status.errors as f64 / calls as f64,
    };
    let health = match status.reason.is_empty() {
        true => status.status.clone(),
        false => format!("{} ({})", status.status, status.reason),
    };
    vec![
        format!("Latency (P50/P99): {latency}"),
        format!(
            "Throughput: {:.0} writes/sec, {:.0} reads/sec",
            status.write_rps, status.read_rps
        ),
        format!("Errors: {percent:.2}% ({} errors in last hour)", status.errors),
        format!("Backend health: {health}"),
    ]
}

/// Milliseconds with two significant digits: `0.8ms`, `3.2ms`, `45ms`.
fn millis(seconds: f64) -> String {
    let millis = seconds * 1e3;
    let text = match millis {
        ..0.1 => format!("{millis:.3}"),
        ..1.0 => format!("{millis:.2}"),
        ..10.0 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    format!("{text}ms")
}

pub(super) fn cost(name: &str, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let status = ask(&mut connect(global)?, name)?;
    let since = status.peak_since.as_ref().map(show_time).unwrap_or_default();
    let rates = [
        (
            "write_rps",
            "writes/s",
            status.write_rps_declared,
            status.write_rps_peak,
        ),
        (
            "read_rps",
            "reads/s",
            status.read_rps_declared,
            status.read_rps_peak,
        ),
    ];
    if printer.is_json() {
        let rates: Vec<_> = rates
            .iter()
            .map(|(key, _, declared, peak)| {
                json!({ "need": key, "declared": declared, "peak": peak, "would_do": enough(*peak) })
            })
            .collect();
        return printer.json(&json!({ "namespace": status.name, "since": since, "rates": rates }));
    }
    for (key, unit, declared, peak) in rates {
        let peak_shown = peak.round();
        let would_do = enough(peak);
        printer.line(&match declared {
            0 => format!("No {key} declared, peak {peak_shown} {unit}: {key} {would_do} would do"),
            declared if declared > would_do => {
                format!("Declared {declared} {unit}, peak {peak_shown}: {key} {would_do} would do")
            }
            declared if peak > declared as f64 => {
                format!(
                    "Declared {declared} {unit}, peak {peak_shown}: too little, {key} {would_do} would do"
                )
            }
            declared => format!("Declared {declared} {unit}, peak {peak_shown}: as it should be"),
        })?;
    }
    printer.note(&format!(
        "peaks are means over 10s since {since}, at this gateway"
    ));
    Ok(())
}

/// The rate to declare for a peak: half of it added, rounded up to the next thousand, as the user's
/// guide estimates.
fn enough(peak: f64) -> u64 {
    let wanted = (peak * 1.5).ceil() as u64;
    wanted.div_ceil(1_000).max(1) * 1_000
}

fn status_json(status: &admin::StatusResponse) -> Value {
    json!({
        "namespace": status.name,
        "status": status.status,
        "reason": status.reason,
        "backend": status.backend,
        "streams": status.streams,
        "write_rps": status.write_rps,
        "read_rps": status.read_rps,
        "write_rps_declared": status.write_rps_declared,
        "read_rps_declared": status.read_rps_declared,
        "data_size_declared": status.data_size_declared,
        "p50_seconds": status.p50_seconds,
        "p99_seconds": status.p99_seconds,
        "errors_last_hour": status.errors,
        "calls_last_hour": status.calls,
        "write_rps_peak": status.write_rps_peak,
        "read_rps_peak": status.read_rps_peak,
        "limited_last_minute": status.limited,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_guide() {
        let status = admin::StatusResponse {
            status: "healthy".into(),
            p50_seconds: 0.0008,
            p99_seconds: 0.0032,
            write_rps: 850.2,
            read_rps: 4_199.7,
            errors: 5,
            calls: 50_000,
            ..Default::default()
        };
        assert_eq!(
            metrics_lines(&status),
            [
                "Latency (P50/P99): 0.8ms / 3.2ms",
                "Throughput: 850 writes/sec, 4200 reads/sec",
                "Errors: 0.01% (5 errors in last hour)",
                "Backend health: healthy",
            ]
        );
        let quiet = metrics_lines(&admin::StatusResponse::default());
        assert_eq!(quiet[0], "Latency (P50/P99): no calls in the last minute");
        assert_eq!(quiet[2], "Errors: 0.00% (0 errors in last hour)");
    }

    #[test]
    fn what_would_do_is_the_guides_estimate() {
        assert_eq!(
            (enough(3_200.0), enough(0.0), enough(410.0)),
            (5_000, 1_000, 1_000)
        );
        assert_eq!(
            [0.000_05, 0.000_8, 0.000_75, 0.003_2, 0.045, 1.2].map(millis),
            ["0.05ms", "0.8ms", "0.75ms", "3.2ms", "45ms", "1200ms"]
        );
    }
}
