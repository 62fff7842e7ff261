//! `prism apply` and `prism export`: all namespaces of a gateway as a folder of files.
//!
//! `apply` checks and plans every file before it changes anything, shows what it would do, and does
//! what it has shown, by the hash of each plan.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use prism_codec::method::NamespacesMethod;
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::Client;
use prism_core::namespace::units::parse_duration;
use serde_json::json;

use super::namespace::{all, files_of, name_of, plan, read};
use super::output::Printer;
use super::{Exit, Failure, Global, connect};

#[derive(Debug, Args)]
#[command(long_about = HELP)]
pub(super) struct ApplyArgs {
    /// Namespace file, or directory of them; may be given several times
    #[arg(long = "file", short, required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// Delete the namespaces that have no file, with all their data
    #[arg(long)]
    prune: bool,
    /// Prune so many at the most; without it a tenth of all, but at least one
    #[arg(long, value_name = "COUNT", requires = "prune")]
    prune_allow: Option<usize>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: end with 1 if something would be done
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

const HELP: &str = "\
Make the namespaces of a gateway be as their files say.

Every file is checked and planned before anything is done. What is shown is what is applied: if the gateway would do \
something else by now, the file is refused. With --prune the namespaces without a file are deleted; a directory without \
files, and more than a tenth of all namespaces (but at least one), are refused without --prune-allow.";

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Directory for the files, NAME.yaml each; made when missing
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Overwrite files with other contents
    #[arg(long)]
    force: bool,
}

/// A file with its plan.
struct Planned {
    path: PathBuf,
    yaml: String,
    plan: admin::Plan,
}

pub(super) fn run(args: &ApplyArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let paths = files_of(&args.files)?;
    let mut client = connect(global)?;
    let planned = plan_all(&paths, &mut client, printer)?;
    let pruned = match args.prune {
        true => to_prune(args, &planned, &mut client)?,
        false => Vec::new(),
    };
    show(&planned, &pruned, printer)?;
    let changes = planned.iter().filter(|one| one.plan.action != "none").count() + pruned.len();
    if args.dry_run {
        printer.note("nothing was done (--dry-run)");
        return match args.exit_code && changes > 0 {
            true => Err(Failure::silent(Exit::No)),
            false => Ok(()),
        };
    }
    if changes == 0 {
        return Ok(());
    }
    if !args.yes && (!pruned.is_empty() || planned.iter().any(expires_data)) {
        confirm(printer)?;
    }
    carry_out(&planned, &pruned, &mut client, printer)
}

/// Plans every file. One that is refused does not hide the others, and nothing is done then.
fn plan_all(paths: &[PathBuf], client: &mut Client, printer: &mut Printer) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    let mut failures = Vec::new();
    let mut names = HashSet::new();
    for path in paths {
        let yaml = read(path)?;
        match plan::ask(client, path, yaml.clone()) {
            Ok(plan) if !names.insert(plan.namespace.clone()) => {
                let what = format!(
                    "{}: namespace {} has another file, too",
                    name_of(path),
                    plan.namespace
                );
                failures.push(Failure::new(Exit::No, what).solution("leave one of them out"));
            }
            Ok(plan) => {
                let path = path.clone();
                planned.push(Planned { path, yaml, plan });
            }
            // No other file would fare better.
            Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
            Err(failure) => {
                let message = match failure.problems.is_empty() {
                    true => format!("{}: {}", name_of(path), failure.message),
                    false => failure.message.clone(),
                };
                failures.push(Failure { message, ..failure });
            }
        }
    }
    let Some(last) = failures.pop() else {
        return Ok(planned);
    };
    for failure in &failures {
        printer.failure(failure);
    }
    printer.note(&format!(
        "nothing was done: {} of {} files are refused",
        failures.len() + 1,
        paths.len()
    ));
    Err(last)
}

/// The namespaces without a file, within the brakes.
fn to_prune(args: &ApplyArgs, planned: &[Planned], client: &mut Client) -> Result<Vec<String>, Failure> {
    let known: HashSet<_> = planned.iter().map(|one| &*one.plan.namespace).collect();
    let existing: Vec<_> = all(client)?.into_iter().map(|namespace| namespace.name).collect();
    let count = existing.len();
    let pruned: Vec<_> = existing
        .into_iter()
        .filter(|name| !known.contains(&**name))
        .collect();
    let allowed = args.prune_allow.unwrap_or_else(|| (count / 10).max(1));
    let is_all = !pruned.is_empty() && pruned.len() == count && args.prune_allow.is_none();
    if pruned.len() > allowed || is_all {
        let what = format!(
            "--prune would delete {} of {count} namespaces with all their data ({}); nothing was done",
            pruned.len(),
            shortened(&pruned)
        );
        let advice = format!(
            "look whether files are missing, or allow it with --prune-allow {}",
            pruned.len()
        );
        let failure = Failure::new(Exit::No, what).solution(advice);
        let status = Some(Box::new((
            "FAILED_PRECONDITION".to_owned(),
            "PRUNE_TOO_MANY".to_owned(),
        )));
        return Err(Failure { status, ..failure });
    }
    Ok(pruned)
}

fn shortened(names: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    let shown = names[..names.len().min(SHOWN_MAX)].join(", ");
    match names.len() > SHOWN_MAX {
        true => format!("{shown}, …"),
        false => shown,
    }
}

fn show(planned: &[Planned], pruned: &[String], printer: &mut Printer) -> Result<(), Failure> {
    if printer.is_json() {
        let plans: Vec<_> = planned.iter().map(|one| plan::plan_json(&one.plan)).collect();
        return printer.json(&json!({ "plans": plans, "prune": pruned }));
    }
    let of = |action: &'static str| planned.iter().filter(move |one| one.plan.action == action);
    for one in of("create") {
        printer.line(&format!("+ {}: {}", one.plan.namespace, one.plan.backend))?;
    }
    for one in of("update") {
        let (name, version) = (&one.plan.namespace, one.plan.base_version);
        printer.line(&format!("~ {name}: version {version} → {}", version + 1))?;
        for line in plan::change_lines(&one.plan) {
            printer.line(&format!("  {line}"))?;
        }
    }
    for name in pruned {
        printer.line(&format!("- {name}: deleted with all its data"))?;
    }
    printer.line(&format!(
        "Plan: {} to create, {} to update, {} to delete, {} as they are",
        of("create").count(),
        of("update").count(),
        pruned.len(),
        of("none").count()
    ))
}

/// Whether data may expire earlier than promised before.
fn expires_data(one: &Planned) -> bool {
    one.plan.changes.iter().any(|change| {
        let is_life = matches!(&*change.field, "needs.retention" | "needs.ttl");
        let millis = |value: &Option<String>| {
            let text = value.as_deref()?;
            parse_duration(text).ok()
        };
        let (before, after) = (millis(&change.before), millis(&change.after));
        is_life && after.is_some_and(|after| before.is_none_or(|before| after < before))
    })
}

fn confirm(printer: &mut Printer) -> Result<(), Failure> {
    let what = "this deletes data, or lets it expire earlier";
    if !io::stdin().is_terminal() || printer.is_json() {
        let failure = Failure::new(
            Exit::Usage,
            format!("{what}, and nobody is here to ask; nothing was done"),
        );
        return Err(failure.solution("add --yes"));
    }
    printer.finish()?;
    let _ = write!(io::stderr(), "Apply it, although {what}? Type yes to go on: ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Exit::No, "nothing was done")),
    }
}

fn carry_out(
    planned: &[Planned],
    pruned: &[String],
    client: &mut Client,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut done = 0;
    let todo = planned.iter().filter(|one| one.plan.action != "none");
    let total = todo.clone().count() + pruned.len();
    let stopped = |done: usize, printer: &mut Printer, failure: Failure| {
        printer.note(&format!(
            "{done} of {total} changes were done before that; apply again to go on"
        ));
        failure
    };
    for one in todo {
        let reply = plan::apply(client, &one.path, one.yaml.clone(), &one.plan.hash);
        let reply = reply.map_err(|failure| stopped(done, printer, failure))?;
        done += 1;
        if !printer.is_json() {
            let namespace = reply.namespace.unwrap_or_default();
            let what = match &*reply.action {
                "create" => format!("Namespace {} created: {}", namespace.name, namespace.backend),
                _ => format!(
                    "Namespace {} updated: version {}",
                    namespace.name, namespace.version
                ),
            };
            printer.done(&what)?;
        }
    }
    for name in pruned {
        let request = admin::DeleteRequest { name: name.clone() };
        let reply: Result<admin::DeleteResponse, _> =
            client.unary(NamespacesMethod::Delete.spec().path, &request);
        reply.map_err(|error| stopped(done, printer, Failure::from(error)))?;
        done += 1;
        if !printer.is_json() {
            printer.done(&format!("Namespace {name} deleted with all its data"))?;
        }
    }
    Ok(())
}

pub(super) fn export(args: &ExportArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let namespaces = all(&mut connect(global)?)?;
    let failed = |path: &Path, error: io::Error| {
        Failure::new(Exit::Usage, format!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(&args.out).map_err(|error| failed(&args.out, error))?;
    let path_of = |namespace: &admin::Namespace| args.out.join(format!("{}.yaml", namespace.name));
    // All are looked at before the first is written.
    for namespace in &namespaces {
        let path = path_of(namespace);
        let is_other = std::fs::read(&path).is_ok_and(|found| found != namespace.yaml.as_bytes());
        if is_other && !args.force {
            let what = format!("{} has other contents; nothing was written", path.display());
            return Err(Failure::new(Exit::No, what).solution("name an empty directory, or add --force"));
        }
    }
    for namespace in &namespaces {
        let path = path_of(namespace);
        std::fs::write(&path, &namespace.yaml).map_err(|error| failed(&path, error))?;
    }
    if printer.is_json() {
        let names: Vec<_> = namespaces.iter().map(|namespace| &namespace.name).collect();
        return printer.json(&json!({ "out": args.out.display().to_string(), "exported": names }));
    }
    printer.done(&format!(
        "{} namespaces in {}",
        namespaces.len(),
        args.out.display()
    ))
}
