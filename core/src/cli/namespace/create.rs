//! `prism namespace create`: one file, or many in as few calls as the gateway allows.

use std::path::{Path, PathBuf};

use prism_codec::method::NamespacesMethod;
use prism_codec::proto::google::rpc::Status;
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::Client;
use prism_core::namespace::file::{self, FileLimits};
use serde_json::{Value, json};

use super::{name_of, namespace_json, plan, read};
use crate::cli::output::{Printer, problem_json, status_failure};
use crate::cli::{Exit, Failure, Global, connect};

/// Most files of a call, and their bytes together, as `prism.admin.v1.CreateBatchRequest` says.
const BATCH_FILES_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The reason of a file that is fine, in a call that others have spoilt.
const BATCH_REFUSED: &str = "BATCH_REFUSED";

/// A namespace file that was read.
struct NamespaceFile {
    /// For people.
    place: String,
    yaml: String,
}

pub(super) fn run(paths: &[PathBuf], global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    if let [path] = paths
        && !path.is_dir()
    {
        return one(path, global, printer);
    }
    let mut files = Vec::new();
    for path in files_of(paths)? {
        let (place, yaml) = (name_of(&path), read(&path)?);
        files.push(NamespaceFile { place, yaml });
    }
    many(&files, global, printer)
}

fn one(path: &Path, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = admin::CreateRequest { yaml: read(path)? };
    let mut client = connect(global)?;
    // What the gateway would refuse is refused by the create itself, in the same words.
    let plan = (!printer.is_json()).then(|| plan::ask(&mut client, path, request.yaml.clone()));
    let reply: admin::CreateResponse = client
        .unary(NamespacesMethod::Create.spec().path, &request)
        .map_err(|error| Failure {
            place: name_of(path),
            ..Failure::from(error)
        })?;
    let namespace = reply.namespace.unwrap_or_default();
    if printer.is_json() {
        return printer.json(&namespace_json(&namespace));
    }
    created(&namespace, printer)?;
    // Of the store and the reason for it; the guide has no line for them.
    if let Some(Ok(plan)) = plan
        && let Some(store) = plan.decisions.iter().find(|decision| decision.field == "store")
    {
        // Where there is one store only, nobody wonders.
        let is_choice = store.rule != "ONLY";
        if is_choice {
            printer.note(&format!("{} because: {}", store.value, store.reason));
        }
        let is_told = |warning: &&String| is_choice || !warning.starts_with("unmeasured:");
        plan.warnings
            .iter()
            .filter(is_told)
            .for_each(|warning| printer.note(warning));
    }
    Ok(())
}

/// The lines of the user's guide, word for word.
pub(super) fn created(namespace: &admin::Namespace, printer: &mut Printer) -> Result<(), Failure> {
    printer.done(&format!("Namespace {} created", namespace.name))?;
    printer.done(&format!("Backend provisioned: {}", namespace.backend))?;
    printer.done("Access policies configured")?;
    printer.done("Ready to use")?;
    note_access(std::iter::once(&*namespace.yaml), printer);
    Ok(())
}

/// Access policies are always recorded, so that the file need not change when the gateway learns
/// who is calling; but nobody should rely on them where it does not.
fn note_access<'a>(mut yamls: impl Iterator<Item = &'a str>, printer: &mut Printer) {
    if yamls.any(|yaml| yaml.lines().any(|line| line.starts_with("access:"))) {
        printer.note("access policies hold where the gateway has identity (identity.trust_domain); elsewhere they are recorded only");
    }
}

/// The files that are named, and those in the directories that are named, in the order of their
/// names.
pub(in crate::cli) fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error: std::io::Error| {
            let failure = Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display()));
            failure.solution("name namespace files, or a directory that holds some")
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            let is_yaml = file.extension().is_some_and(|end| end == "yaml" || end == "yml");
            if is_yaml && file.is_file() {
                found.push(file);
            }
        }
        if found.is_empty() {
            let what = format!("{} holds no file that ends with .yaml or .yml", path.display());
            return Err(Failure::new(Exit::Usage, what).solution("name a directory with namespace files"));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

fn many(files: &[NamespaceFile], global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let calls = calls_of(files);
    if calls.len() > 1 {
        // What one call cannot hold is not all or nothing: no file with a problem is found half
        // way.
        check(files)?;
    }
    let mut client = connect(global)?;
    let mut created = Vec::new();
    for call in calls {
        let outcome = create(call, &mut client, &mut created);
        if let Err(failures) = outcome {
            return report(failures, &created, files.len(), printer);
        }
    }
    if printer.is_json() {
        return printer.json(&json!({ "created": created.iter().map(namespace_json).collect::<Vec<_>>() }));
    }
    for namespace in &created {
        printer.done(&format!(
            "Namespace {} created: {}",
            namespace.name, namespace.backend
        ))?;
    }
    printer.done(&format!("{} namespaces ready to use", created.len()))?;
    note_access(files.iter().map(|file| &*file.yaml), printer);
    Ok(())
}

/// The files of each call.
fn calls_of(files: &[NamespaceFile]) -> Vec<&[NamespaceFile]> {
    let mut calls = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (place, file) in files.iter().enumerate() {
        let is_full = place - begin == BATCH_FILES_MAX || bytes + file.yaml.len() > BATCH_BYTES_MAX;
        if is_full && place > begin {
            calls.push(&files[begin..place]);
            (begin, bytes) = (place, 0);
        }
        bytes += file.yaml.len();
    }
    calls.push(&files[begin..]);
    calls
}

fn check(files: &[NamespaceFile]) -> Result<(), Failure> {
    for file in files {
        if let Err(problems) = file::parse(&file.yaml, &FileLimits::default()) {
            return Err(Failure::problems(Exit::No, &file.place, problems));
        }
    }
    Ok(())
}

/// Makes one call; the failures of its files, if it has any.
fn create(
    files: &[NamespaceFile],
    client: &mut Client,
    created: &mut Vec<admin::Namespace>,
) -> Result<(), Vec<Failure>> {
    let request = admin::CreateBatchRequest {
        yamls: files.iter().map(|file| file.yaml.clone()).collect(),
    };
    let reply: admin::CreateBatchResponse = client
        .unary(NamespacesMethod::CreateBatch.spec().path, &request)
        .map_err(|error| vec![Failure::from(error)])?;
    let mut failures = Vec::new();
    for (file, result) in files.iter().zip(reply.results) {
        match result.namespace {
            Some(namespace) => created.push(namespace),
            None => failures.extend(failure_of(file, &result.status.unwrap_or_default())),
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}

/// The failure of one file; `None` if it is fine, and only others of its call are not.
fn failure_of(file: &NamespaceFile, status: &Status) -> Option<Failure> {
    let failure = status_failure(status);
    let reason = failure.status.as_deref().map(|(_, reason)| reason.as_str());
    if reason == Some(BATCH_REFUSED) {
        return None;
    }
    // A failure with problems says where each of them is.
    let message = match failure.problems.is_empty() {
        true => format!("{}: {}", file.place, failure.message),
        false => failure.message,
    };
    Some(Failure {
        place: file.place.clone(),
        message,
        ..failure
    })
}

/// Says why each file was refused, and how many namespaces there are all the same.
fn report(
    mut failures: Vec<Failure>,
    created: &[admin::Namespace],
    files: usize,
    printer: &mut Printer,
) -> Result<(), Failure> {
    if printer.is_json() {
        let refused: Vec<Value> = failures.iter().map(refused_json).collect();
        let created: Vec<Value> = created.iter().map(namespace_json).collect();
        printer.json(&json!({ "created": created, "refused": refused }))?;
    }
    let last = failures.pop();
    if !printer.is_json() {
        for failure in &failures {
            printer.failure(failure);
        }
    }
    let what = match created.len() {
        0 => format!("nothing was created of {files} files"),
        some => format!("{some} of {files} namespaces were created before that"),
    };
    printer.note(&what);
    match last {
        Some(failure) if printer.is_json() => Err(Failure::silent(failure.exit)),
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn refused_json(failure: &Failure) -> Value {
    let reason = failure.status.as_deref().map(|(_, reason)| reason.as_str());
    json!({
        "file": failure.place,
        "message": failure.message,
        "reason": reason,
        "problems": failure.problems.iter().map(problem_json).collect::<Vec<_>>(),
    })
}
