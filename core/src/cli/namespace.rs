//! `prism namespace`: create, update, validate, list, show and delete. The texts of `create` are
//! those of the user's guide, word for word.

mod access;
mod create;
pub(super) mod plan;
mod status;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use prism_codec::method::NamespacesMethod;
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::Client;
use prism_core::namespace::file::{self, FileLimits};
use prism_core::namespace::model::unsupported;
use prism_core::namespace::problem::{descriptions, suggestions};
use prism_core::namespace::schema::schema_text;
use prism_core::namespace::yaml;
use serde_json::{Value, json};

pub(super) use self::create::files_of;
use super::output::{Printer, problem_json, show_time};
use super::{Exit, Failure, Global, connect};

#[derive(Debug, Subcommand)]
pub(super) enum NamespaceCommand {
    /// Create namespaces from their files
    #[command(long_about = CREATE_HELP)]
    Create {
        /// Namespace files, YAML, or directories of them; `-` for standard input
        #[arg(required = true, value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
        /// Do what the plan with this hash says, or nothing; for one file
        #[arg(long, value_name = "HASH")]
        plan: Option<String>,
    },
    /// Show what the gateway would make of a file, and why, and do nothing
    Plan {
        /// The namespace file, YAML; `-` for standard input
        file: PathBuf,
    },
    /// Put a new file in the place of a namespace's
    Update {
        /// The namespace file, YAML; `-` for standard input
        file: PathBuf,
        /// Update this version only, as `show` prints it
        #[arg(long, value_name = "VERSION")]
        base_version: Option<u64>,
        /// Do what the plan with this hash says, or nothing
        #[arg(long, value_name = "HASH", conflicts_with = "base_version")]
        plan: Option<String>,
    },
    /// Check namespace files without a gateway, and report every problem
    Validate {
        /// Namespace files, YAML; `-` for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a JSON Schema of namespace files, for editors
    Schema,
    /// List all namespaces
    List,
    /// Show how a namespace is doing, next to what it declares
    Status {
        /// Name of the namespace
        name: String,
    },
    /// Show latency, throughput and errors of a namespace
    Metrics {
        /// Name of the namespace
        name: String,
        /// Look again each second
        #[arg(long, short)]
        watch: bool,
    },
    /// Compare the rates that a namespace declares with those that it has needed
    Cost {
        /// Name of the namespace
        name: String,
    },
    /// Show one namespace and the file that it was made from
    Show {
        /// Name of the namespace
        name: String,
    },
    /// Let a service use a namespace
    Grant(access::GrantArgs),
    /// Take a service's access to a namespace back
    Revoke(access::RevokeArgs),
    /// Delete a namespace and all its data
    Delete {
        /// Name of the namespace
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

const CREATE_HELP: &str = "\
Create namespaces from their files.

Several files, or a directory of them (all that end with .yaml or .yml), are created together: if the gateway refuses one \
of them, none is created, and each refused file is named with its problems. A call holds 1,000 files and 4 MiB; more are \
checked here first and then sent in several calls.";

pub(super) fn run(command: &NamespaceCommand, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        NamespaceCommand::Create { files, plan } => match (&files[..], plan) {
            (files, None) => create::run(files, global, printer),
            ([file], Some(plan)) if !file.is_dir() => plan::run_planned(file, plan, global, printer),
            _ => {
                let what = "--plan is about one file, and several are named";
                Err(Failure::new(Exit::Usage, what).solution("name the file that was planned"))
            }
        },
        NamespaceCommand::Plan { file } => plan::run(file, global, printer),
        NamespaceCommand::Update {
            file,
            plan: Some(plan),
            ..
        } => plan::run_planned(file, plan, global, printer),
        NamespaceCommand::Update {
            file, base_version, ..
        } => update(file, *base_version, global, printer),
        NamespaceCommand::Schema => printer.raw(schema_text().as_bytes()),
        NamespaceCommand::Status { name } => status::status(name, global, printer),
        NamespaceCommand::Metrics { name, watch } => status::metrics(name, *watch, global, printer),
        NamespaceCommand::Cost { name } => status::cost(name, global, printer),
        NamespaceCommand::Validate { files } => validate(files, printer),
        NamespaceCommand::List => list(global, printer),
        NamespaceCommand::Show { name } => show(name, global, printer),
        NamespaceCommand::Grant(args) => access::grant(args, global, printer),
        NamespaceCommand::Revoke(args) => access::revoke(args, global, printer),
        NamespaceCommand::Delete { name, yes } => delete(name, *yes, global, printer),
    }
}

fn update(path: &Path, base: Option<u64>, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = admin::UpdateRequest {
        yaml: read(path)?,
        base_version: base.unwrap_or(0),
    };
    let reply: admin::UpdateResponse = connect(global)?
        .unary(NamespacesMethod::Update.spec().path, &request)
        .map_err(|error| Failure {
            place: name_of(path),
            ..Failure::from(error)
        })?;
    let namespace = reply.namespace.unwrap_or_default();
    if printer.is_json() {
        return printer.json(&namespace_json(&namespace));
    }
    let (name, version) = (&namespace.name, namespace.version);
    printer.done(&format!("Namespace {name} updated: version {version}"))
}

/// Checks every file before it answers: the first bad one does not hide the others.
fn validate(paths: &[PathBuf], printer: &mut Printer) -> Result<(), Failure> {
    let mut results = Vec::new();
    let mut failure = None;
    for path in paths {
        let name = name_of(path);
        let parsed = file::parse(&read(path)?, &FileLimits::default());
        let problems = parsed.as_ref().err().map(Vec::as_slice).unwrap_or_default();
        let missing = parsed.as_ref().map(unsupported).unwrap_or_default();
        results.push(json!({
            "file": name,
            "valid": parsed.is_ok(),
            "problems": problems.iter().map(problem_json).collect::<Vec<_>>(),
            "unsupported": missing.iter().map(problem_json).collect::<Vec<_>>(),
        }));
        match parsed {
            Err(problems) => {
                // With several bad files each is reported as it is met, and the last one ends the
                // program.
                if let Some(earlier) = failure.replace(Failure::problems(Exit::No, &name, problems))
                    && !printer.is_json()
                {
                    printer.failure(&earlier);
                }
            }
            Ok(_) if printer.is_json() => {}
            Ok(_) => {
                printer.done(&format!("{name} is valid"))?;
                if !missing.is_empty() {
                    printer.note(&format!(
                        "{name} is for a later version: {} ({})",
                        descriptions(&missing),
                        suggestions(&missing)
                    ));
                }
            }
        }
    }
    if printer.is_json() {
        printer.json(&Value::Array(results))?;
        // The list on standard output has reported it all.
        failure = failure.map(|_| Failure::silent(Exit::No));
    }
    failure.map_or(Ok(()), Err)
}

/// All namespaces, in the order of their names.
pub(super) fn all(client: &mut Client) -> Result<Vec<admin::Namespace>, Failure> {
    let mut namespaces = Vec::new();
    let mut page_token = Vec::new();
    loop {
        let request = admin::ListRequest {
            page_size: 1_000,
            page_token,
        };
        let reply: admin::ListResponse = client.unary(NamespacesMethod::List.spec().path, &request)?;
        namespaces.extend(reply.namespaces);
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return Ok(namespaces);
        }
    }
}

fn list(global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let namespaces = all(&mut connect(global)?)?;
    if printer.is_json() {
        let all: Vec<_> = namespaces.iter().map(namespace_json).collect();
        return printer.json(&json!({ "namespaces": all }));
    }
    if namespaces.is_empty() {
        printer.note("there are no namespaces yet; create one with `prism namespace create FILE`");
        return Ok(());
    }
    let heads = [
        "NAME",
        "TEAM",
        "CLIENT API",
        "DURABILITY",
        "STATE",
        "BACKEND",
        "CREATED",
    ]
    .map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(heads).chain(namespaces.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..7).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        printer.line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn row(namespace: &admin::Namespace) -> [String; 7] {
    let team = if namespace.team.is_empty() {
        "-"
    } else {
        &namespace.team
    };
    [
        namespace.name.clone(),
        team.to_owned(),
        namespace.client_api.clone(),
        namespace.durability.clone(),
        namespace.state.clone(),
        namespace.backend.clone(),
        created(namespace),
    ]
}

fn created(namespace: &admin::Namespace) -> String {
    namespace
        .create_time
        .as_ref()
        .map_or_else(|| "-".to_owned(), show_time)
}

fn show(name: &str, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let request = admin::GetRequest {
        name: name.to_owned(),
    };
    let reply: admin::GetResponse = connect(global)?.unary(NamespacesMethod::Get.spec().path, &request)?;
    let namespace = reply.namespace.unwrap_or_default();
    if printer.is_json() {
        return printer.json(&namespace_json(&namespace));
    }
    printer.line(&format!("namespace: {}", namespace.name))?;
    printer.line(&format!(
        "team: {}",
        if namespace.team.is_empty() {
            "-"
        } else {
            &namespace.team
        }
    ))?;
    printer.line(&format!("state: {}", namespace.state))?;
    if !namespace.trouble.is_empty() {
        printer.line(&format!("trouble: {}; it is tried again", namespace.trouble))?;
    }
    printer.line(&format!("version: {}", namespace.version))?;
    printer.line(&format!("client_api: {}", namespace.client_api))?;
    printer.line(&format!("durability: {}", namespace.durability))?;
    printer.line(&format!("backend: {}", namespace.backend))?;
    printer.line(&format!("created: {}", created(&namespace)))?;
    printer.line("")?;
    printer.line("The file that it was made from:")?;
    for line in namespace.yaml.lines() {
        printer.line(format!("  {line}").trim_end())?;
    }
    Ok(())
}

fn delete(name: &str, yes: bool, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    if !yes && !asked(name)? {
        return Err(Failure::new(
            Exit::No,
            format!("namespace {name} is left as it is"),
        ));
    }
    let request = admin::DeleteRequest {
        name: name.to_owned(),
    };
    let _: admin::DeleteResponse = connect(global)?.unary(NamespacesMethod::Delete.spec().path, &request)?;
    if printer.is_json() {
        return printer.json(&json!({ "deleted": name }));
    }
    printer.done(&format!("Namespace {name} deleted with all its data"))
}

/// Whether the person at the terminal really wants to lose the data.
fn asked(name: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let failure = Failure::new(
            Exit::Usage,
            format!("deleting namespace {name} deletes all its data, and nobody is here to ask"),
        );
        return Err(failure.solution(format!("prism namespace delete {name} --yes")));
    }
    let _ = write!(
        io::stderr(),
        "Delete namespace {name} and all its data? Type its name to go on: "
    );
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    Ok(answer.trim() == name)
}

fn namespace_json(namespace: &admin::Namespace) -> Value {
    json!({
        "name": namespace.name,
        "team": namespace.team,
        "client_api": namespace.client_api,
        "durability": namespace.durability,
        "backend": namespace.backend,
        "state": namespace.state,
        "version": namespace.version,
        "trouble": namespace.trouble,
        "create_time": namespace.create_time.as_ref().map(show_time),
        "yaml": namespace.yaml,
    })
}

pub(super) fn name_of(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// The text of a file, as long as it is of a size that can be a namespace file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let name = name_of(path);
    let fail = |reason: String| {
        let failure = Failure::new(Exit::Usage, format!("cannot read {name}: {reason}"));
        failure.solution("name a namespace file, such as examples/user-sessions.yaml")
    };
    let limit = yaml::BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| fail(error.to_string()))?;
    if bytes.len() > yaml::BYTES_MAX {
        return Err(fail(format!(
            "it has more than {} bytes (64 KiB), which no namespace file has",
            yaml::BYTES_MAX
        )));
    }
    String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8 text".to_owned()))
}
