//! `prism namespace grant` and `revoke`: the consumers of a namespace's file, changed by an update.

use std::path::PathBuf;

use clap::Args;
use prism_codec::method::NamespacesMethod;
use prism_codec::proto::prism::admin::v1 as admin;
use prism_core::client::{Client, ClientError};
use prism_core::namespace::{grant, model::Permission};
use serde_json::json;

use super::super::ca::{self, Authority};
use super::super::output::Printer;
use super::super::{Exit, Failure, Global, connect};

/// Tries while others change the same file.
const TRIES: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct GrantArgs {
    /// Name of the namespace
    name: String,
    /// The service that is to have access
    #[arg(long)]
    service: String,
    /// Permissions that it gets: read, write, admin, with commas between them
    #[arg(long, value_delimiter = ',', required = true, value_parser = permission)]
    permissions: Vec<Permission>,
    /// Sign a certificate for it with the development authority, into this folder
    #[arg(long, value_name = "DIR")]
    issue_credentials: Option<PathBuf>,
    /// Folder of the development authority; where there is one, credentials are issued
    #[arg(long = "authority", value_name = "DIR", default_value = ca::FOLDER)]
    authority: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Name of the namespace
    name: String,
    /// The service that is to lose access
    #[arg(long)]
    service: String,
    /// Permissions that it loses; without this option all
    #[arg(long, value_delimiter = ',', value_parser = permission)]
    permissions: Vec<Permission>,
}

fn permission(text: &str) -> Result<Permission, String> {
    let allowed = Permission::ALLOWED.join(", ");
    Permission::parse(text).ok_or_else(|| format!("{text:?} is not known; allowed: {allowed}"))
}

pub(super) fn grant(args: &GrantArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    // Before anything is granted: credentials that cannot be issued.
    let authority = match (&args.issue_credentials, Authority::is_in(&args.authority)) {
        (None, false) => None,
        _ => Some(Authority::open(&args.authority)?),
    };
    let version = change(&mut connect(global)?, &args.name, |yaml| {
        grant::grant(yaml, &args.service, &args.permissions)
    })?;
    let (service, name) = (&args.service, &args.name);
    let words: Vec<_> = args.permissions.iter().map(|one| one.as_str()).collect();
    let credentials = match &authority {
        Some(authority) => Some(authority.issue(service, None, args.issue_credentials.as_deref())?),
        None => None,
    };
    if printer.is_json() {
        return printer.json(&json!({
            "namespace": name,
            "service": service,
            "permissions": words,
            "version": version,
            "credentials": credentials,
        }));
    }
    printer.done(&format!(
        "Access granted: {service} may {} {name}",
        words.join(" and ")
    ))?;
    match credentials {
        Some(issued) => printer.done(&issued),
        None => printer.line(&format!(
            "Credentials: {service} uses its own identity (a certificate for spiffe://…/service/{service})"
        )),
    }
}

pub(super) fn revoke(args: &RevokeArgs, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let version = change(&mut connect(global)?, &args.name, |yaml| {
        grant::revoke(yaml, &args.service, &args.permissions)
    })?;
    let (service, name) = (&args.service, &args.name);
    let words: Vec<_> = args.permissions.iter().map(|one| one.as_str()).collect();
    if printer.is_json() {
        return printer.json(&json!({
            "namespace": name,
            "service": service,
            "revoked": words,
            "version": version,
        }));
    }
    let what = match words.is_empty() {
        true => "do anything with".to_owned(),
        false => words.join(" or "),
    };
    printer.done(&format!("Access revoked: {service} may no longer {what} {name}"))
}

/// Changes a namespace's file, as it is at that moment. Returns its version afterwards.
fn change(
    client: &mut Client,
    name: &str,
    edit: impl Fn(&str) -> Result<String, String>,
) -> Result<u64, Failure> {
    let path = |method: NamespacesMethod| method.spec().path;
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        let request = admin::GetRequest {
            name: name.to_owned(),
        };
        let reply: admin::GetResponse = client.unary(path(NamespacesMethod::Get), &request)?;
        let found = reply.namespace.unwrap_or_default();
        let yaml =
            edit(&found.yaml).map_err(|what| Failure::new(Exit::No, format!("namespace {name}: {what}")))?;
        if yaml == found.yaml {
            return Ok(found.version);
        }
        let request = admin::UpdateRequest {
            yaml,
            base_version: found.version,
        };
        let updated: Result<admin::UpdateResponse, _> =
            client.unary(path(NamespacesMethod::Update), &request);
        match updated {
            // Somebody else was faster: what they did stays, and this is done to what is there now.
            Err(ClientError::Status(status)) if status.code == ABORTED && tries_left > 0 => {}
            updated => return Ok(updated?.namespace.unwrap_or_default().version),
        }
    }
}

/// gRPC's code of a version that has changed.
const ABORTED: i32 = 10;
