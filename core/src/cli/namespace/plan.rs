//! `prism namespace plan`: what the gateway would make of a file, and why.

use std::path::Path;

use prism_codec::method::NamespacesMethod;
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::Client;
use serde_json::{Value, json};

use super::{name_of, namespace_json, read};
use crate::cli::output::Printer;
use crate::cli::{Failure, Global, connect};

/// Columns of the titles, and of the values after them.
const TITLE_WIDTH: usize = 13;
const VALUE_WIDTH: usize = 20;

pub(super) fn run(path: &Path, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let yaml = read(path)?;
    let plan = ask(&mut connect(global)?, path, yaml)?;
    match printer.is_json() {
        true => printer.json(&plan_json(&plan)),
        false => show(&plan, printer),
    }
}

/// The gateway's plan of a file.
pub(in crate::cli) fn ask(client: &mut Client, path: &Path, yaml: String) -> Result<admin::Plan, Failure> {
    let request = admin::PlanRequest { yaml };
    let reply: Result<admin::PlanResponse, _> = client.unary(NamespacesMethod::Plan.spec().path, &request);
    let reply = reply.map_err(|error| Failure {
        place: name_of(path),
        ..Failure::from(error)
    })?;
    Ok(reply.plan.unwrap_or_default())
}

/// Carries out a plan by its hash.
pub(in crate::cli) fn apply(
    client: &mut Client,
    path: &Path,
    yaml: String,
    plan: &str,
) -> Result<admin::ApplyResponse, Failure> {
    let plan = plan.to_owned();
    let request = admin::ApplyRequest { yaml, plan };
    let reply = client.unary(NamespacesMethod::Apply.spec().path, &request);
    reply.map_err(|error| Failure {
        place: name_of(path),
        ..Failure::from(error)
    })
}

/// Creates or updates a namespace as a plan says that was shown before.
pub(super) fn run_planned(
    path: &Path,
    plan: &str,
    global: &Global,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let yaml = read(path)?;
    let reply = apply(&mut connect(global)?, path, yaml, plan)?;
    let namespace = reply.namespace.unwrap_or_default();
    if printer.is_json() {
        return printer.json(&namespace_json(&namespace));
    }
    match &*reply.action {
        "create" => super::create::created(&namespace, printer),
        "update" => printer.done(&format!(
            "Namespace {} updated: version {}",
            namespace.name, namespace.version
        )),
        _ => printer.done(&format!("Namespace {} is so already", namespace.name)),
    }
}

/// The head of a plan: `Plan for user-events: update (version 3 → 4)`.
pub(in crate::cli) fn head(plan: &admin::Plan) -> String {
    let (name, action) = (&plan.namespace, &plan.action);
    match &**action {
        "update" => {
            let version = plan.base_version;
            format!("Plan for {name}: update (version {version} → {})", version + 1)
        }
        "none" => format!("Plan for {name}: nothing to do"),
        _ => format!("Plan for {name}: {action}"),
    }
}

/// The lines of what changes: `~ Write RPS    1000 → 10000`.
pub(in crate::cli) fn change_lines(plan: &admin::Plan) -> impl Iterator<Item = String> {
    plan.changes.iter().map(|change| {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not declared".to_owned());
        let (before, after) = (value(&change.before), value(&change.after));
        format!("  ~ {:<TITLE_WIDTH$}{before} → {after}", change.title)
    })
}

fn show(plan: &admin::Plan, printer: &mut Printer) -> Result<(), Failure> {
    printer.line(&head(plan))?;
    for line in change_lines(plan) {
        printer.line(&line)?;
    }
    for decision in &plan.decisions {
        let (title, value) = (&decision.title, &decision.value);
        let line = match decision.reason.is_empty() {
            true => format!("  {title:<TITLE_WIDTH$}{value}"),
            // A long value still stands apart from its reason.
            false => format!(
                "  {title:<TITLE_WIDTH$}{:<VALUE_WIDTH$}{}",
                format!("{value}   "),
                decision.reason
            ),
        };
        printer.line(&line)?;
    }
    section(
        "Not chosen",
        plan.rejected
            .iter()
            .map(|one| format!("{:<TITLE_WIDTH$}{}", format!("{}  ", one.title), one.reason)),
        printer,
    )?;
    section("Assumed", plan.assumed.iter().cloned(), printer)?;
    section("Warnings", plan.warnings.iter().cloned(), printer)?;
    for (number, line) in plan.cost.iter().enumerate() {
        let title = if number == 0 { "Cost" } else { "" };
        printer.line(&format!("{title:<15}{line}"))?;
    }
    if !plan.steps.is_empty() {
        let steps: Vec<_> = plan
            .steps
            .iter()
            .enumerate()
            .map(|(number, step)| format!("{} {step}", number + 1))
            .collect();
        printer.line(&format!("{:<15}{}", "Steps", steps.join("  ")))?;
    }
    printer.line(&format!("Plan {}", plan.hash))
}

fn section(
    title: &str,
    lines: impl ExactSizeIterator<Item = String>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    if lines.len() > 0 {
        printer.line(title)?;
    }
    for line in lines {
        printer.line(&format!("  {line}"))?;
    }
    Ok(())
}

pub(in crate::cli) fn plan_json(plan: &admin::Plan) -> Value {
    let decisions = plan.decisions.iter().map(|decision| {
        json!({
            "field": decision.field, "value": decision.value, "rule": decision.rule,
            "because": decision.because, "reason": decision.reason,
        })
    });
    let rejected = plan
        .rejected
        .iter()
        .map(|one| json!({ "store": one.store, "rule": one.rule, "reason": one.reason }));
    let changes = plan
        .changes
        .iter()
        .map(|change| json!({ "field": change.field, "before": change.before, "after": change.after }));
    let bytes_max = (plan.bytes_max > 0).then_some(plan.bytes_max);
    json!({
        "namespace": plan.namespace,
        "action": plan.action,
        "plan": plan.hash,
        "base_version": plan.base_version,
        "store": plan.store,
        "backend": plan.backend,
        "decisions": decisions.collect::<Vec<_>>(),
        "changes": changes.collect::<Vec<_>>(),
        "rejected": rejected.collect::<Vec<_>>(),
        "assumed": plan.assumed,
        "warnings": plan.warnings,
        "cost": { "disk_bytes_max": bytes_max, "sentences": plan.cost },
        "steps": plan.steps,
    })
}
