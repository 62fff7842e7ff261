//! The calls of `prism.admin.v1.Namespaces` as plain functions on catalog and request.
//!
//! Promises: no I/O but the catalog's; a call that changes something has recorded it when it
//! returns, and nothing else. Leaves to others: the wire, and what is to follow from a record
//! ([`super::changes`]).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prism_codec::grpc::Status as GrpcStatus;
use prism_codec::proto::google::rpc::Status;
use prism_codec::proto::prism::admin::v1 as admin;
use prost::Message;

use super::catalog::{Catalog, CatalogEntry, Insert, StoreRef};
use super::changes::Outcome;
use super::refusal::{self, Refusal, problem_message};
use super::stores::Stores;
use crate::namespace::file::{self, FileLimits};
use crate::namespace::model::{NamespaceConfig, check_name, unsupported};
use crate::namespace::problem::Problem;
use crate::namespace::state::NamespaceState;

/// Page of a `List` that does not say how many.
pub(crate) const PAGE_SIZE_DEFAULT: u32 = 100;
/// Largest page of a `List`.
pub(crate) const PAGE_SIZE_MAX: u32 = 1_000;
/// Most files of a `CreateBatch`.
pub(crate) const BATCH_FILES_MAX: usize = 1_000;
/// Bytes of its files together.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of an answer's refusals up to which all their details are sent.
const BATCH_DETAILS_BYTES_MAX: usize = 1 << 20;

/// Facts about the gateway that the calls need.
#[derive(Clone, Debug)]
pub(crate) struct ServiceContext {
    /// Limits of what a file may ask for.
    pub(crate) file: FileLimits,
    /// Most namespaces in the catalog.
    pub(crate) namespaces_max: usize,
    /// The stores that a new namespace may get.
    pub(crate) stores: Stores,
}

/// `Validate`: every problem of a file. Never refuses: a file that is too long is a problem, too.
pub(crate) fn validate(
    context: &ServiceContext,
    request: &admin::ValidateRequest,
) -> admin::ValidateResponse {
    let problems = file::parse(&request.yaml, &context.file)
        .err()
        .unwrap_or_default();
    admin::ValidateResponse {
        problems: problems.into_iter().map(problem_message).collect(),
    }
}

/// `Create`: checks the file and records that the namespace is to be.
///
/// # Errors
/// INVALID_ARGUMENT `NAMESPACE_INVALID`, UNIMPLEMENTED `NAMESPACE_UNSUPPORTED`, FAILED_PRECONDITION
/// `DURABILITY_IMPOSSIBLE`, `NO_STORE` or `NAMESPACE_DELETING`, ALREADY_EXISTS `NAMESPACE_EXISTS`,
/// RESOURCE_EXHAUSTED `NAMESPACES_FULL`, UNAVAILABLE `CATALOG_UNAVAILABLE`.
pub(crate) fn create(
    context: &ServiceContext,
    catalog: &mut Catalog,
    now: SystemTime,
    request: &admin::CreateRequest,
) -> Result<CatalogEntry, Refusal> {
    let mut entries = vec![check(context, now, &request.yaml)?];
    let insert = catalog.create(&entries, context.namespaces_max);
    match insert.map_err(|error| refusal::of_catalog(&error))? {
        Insert::Done(ids) => {
            entries[0].id = ids[0];
            Ok(entries.remove(0))
        }
        Insert::Taken(taken) => Err(refusal::taken(&entries[0].name, taken[0].1)),
    }
}

/// Outcome of [`create_batch`].
#[derive(Debug)]
pub(crate) enum Batch {
    /// All namespaces are recorded.
    Recorded(Vec<CatalogEntry>),
    /// Nothing was done; the answer says why, file by file.
    Refused(admin::CreateBatchResponse),
}

/// `CreateBatch`: checks all files, and records that their namespaces are to be if all are fine.
///
/// # Errors
/// INVALID_ARGUMENT `BATCH_INVALID` for too many files or bytes, or none; as for [`create`] where
/// it concerns all files together.
pub(crate) fn create_batch(
    context: &ServiceContext,
    catalog: &mut Catalog,
    now: SystemTime,
    request: &admin::CreateBatchRequest,
) -> Result<Batch, Refusal> {
    check_batch(request)?;
    let mut checked: Vec<Result<CatalogEntry, Refusal>> = Vec::with_capacity(request.yamls.len());
    let mut places = HashMap::new();
    for (place, yaml) in request.yamls.iter().enumerate() {
        let entry = check(context, now, yaml);
        let first = entry
            .as_ref()
            .ok()
            .and_then(|entry| places.insert(entry.name.clone(), place));
        checked.push(match (entry, first) {
            (Ok(entry), Some(first)) => Err(refusal::twice(&entry.name, first)),
            (entry, _) => entry,
        });
    }
    if checked.iter().any(Result::is_err) {
        // Whoever mends the files learns of the names that are taken with the same answer.
        for one in &mut checked {
            if let Ok(entry) = one {
                let taken = catalog.entry(&entry.name);
                if let Some(taken) = taken.map_err(|error| refusal::of_catalog(&error))? {
                    *one = Err(refusal::taken(&taken.name, taken.state));
                }
            }
        }
        return Ok(Batch::Refused(refused_batch(checked)));
    }
    let mut entries: Vec<CatalogEntry> = checked.into_iter().flatten().collect();
    let insert = catalog.create(&entries, context.namespaces_max);
    match insert.map_err(|error| refusal::of_catalog(&error))? {
        Insert::Done(ids) => {
            entries.iter_mut().zip(ids).for_each(|(entry, id)| entry.id = id);
            Ok(Batch::Recorded(entries))
        }
        Insert::Taken(taken) => {
            let mut results: Vec<_> = entries.into_iter().map(Ok).collect();
            for (place, state) in taken {
                if let Ok(entry) = &results[place] {
                    results[place] = Err(refusal::taken(&entry.name, state));
                }
            }
            Ok(Batch::Refused(refused_batch(results)))
        }
    }
}

fn check_batch(request: &admin::CreateBatchRequest) -> Result<(), Refusal> {
    let (files, bytes) = (
        request.yamls.len(),
        request.yamls.iter().map(String::len).sum::<usize>(),
    );
    let wrong = if files == 0 || files > BATCH_FILES_MAX {
        format!("{files} files; allowed: 1 to {BATCH_FILES_MAX} in a call")
    } else if bytes > BATCH_BYTES_MAX {
        format!("{bytes} bytes of files; allowed: {BATCH_BYTES_MAX} in a call")
    } else {
        return Ok(());
    };
    let problem = Problem::new(
        "yamls",
        0,
        format!("yamls holds {wrong}; nothing was done, send them in several calls"),
    );
    let message = problem.description.clone();
    Err(refusal::bad_request("BATCH_INVALID", &message, &[problem]))
}

/// The answer to a batch of which some files are refused, and so all.
fn refused_batch(checked: Vec<Result<CatalogEntry, Refusal>>) -> admin::CreateBatchResponse {
    let refused = checked.iter().filter(|checked| checked.is_err()).count();
    let mut bytes = 0;
    let results = checked.into_iter().map(|checked| {
        let mut status = match checked {
            Ok(entry) => refusal::others_refused(&entry.name, refused),
            Err(refusal) => refusal,
        };
        bytes += status.encoded_len();
        if bytes > BATCH_DETAILS_BYTES_MAX {
            // The reason stays.
            status.details.truncate(1);
        }
        admin::CreateBatchResult {
            status: Some(*status),
            namespace: None,
        }
    });
    admin::CreateBatchResponse {
        results: results.collect(),
    }
}

/// `Update`: checks the file and records it as the one that is to hold. The entry that comes back
/// is as it will be.
///
/// # Errors
/// As for [`create`] where they are about the file; NOT_FOUND `NAMESPACE_NOT_FOUND`, UNAVAILABLE
/// `NAMESPACE_NOT_READY`, FAILED_PRECONDITION `NAMESPACE_DELETING`, `IMMUTABLE_FIELD` or
/// `NO_STORE`, ABORTED `VERSION_CHANGED`.
pub(crate) fn update(
    context: &ServiceContext,
    catalog: &mut Catalog,
    request: &admin::UpdateRequest,
) -> Result<CatalogEntry, Refusal> {
    let config = read(context, &request.yaml)?;
    catalog.refresh().map_err(|error| refusal::of_catalog(&error))?;
    let entry = known(catalog, &config.name)?;
    if entry.state != NamespaceState::Active {
        return Err(refusal::out_of_service(&entry.name, entry.state));
    }
    if request.base_version != 0 && request.base_version != entry.version {
        return Err(refusal::version_changed(
            &entry.name,
            request.base_version,
            entry.version,
        ));
    }
    check_fixed(&entry, &config)?;
    // It stays where its data is, even if another store would be picked for it today.
    let StoreRef { name, kind } = &entry.store;
    context
        .stores
        .check(name, kind, &config)
        .map_err(|excuses| refusal::no_store(&config, &excuses))?;
    let is_begun = catalog.begin_update(entry.id, entry.version, &request.yaml);
    if !is_begun.map_err(|error| refusal::of_catalog(&error))? {
        // Another gateway was here first.
        let found = known(catalog, &entry.name)?;
        return Err(match found.state {
            NamespaceState::Active => refusal::version_changed(&entry.name, entry.version, found.version),
            state => refusal::out_of_service(&entry.name, state),
        });
    }
    let pending = CatalogEntry {
        state: NamespaceState::Updating,
        pending: Some(request.yaml.clone()),
        ..entry
    };
    Ok(pending.updated())
}

/// Checks that a new file leaves as it is what a namespace keeps for its whole life.
pub(super) fn check_fixed(entry: &CatalogEntry, config: &NamespaceConfig) -> Result<(), Refusal> {
    let durability = config.durability();
    let fixed = [
        ("client_api", &*entry.client_api, config.client_api.as_str()),
        ("needs.durability", &entry.durability, durability.as_str()),
    ];
    match fixed.into_iter().find(|(_, now, asked)| now != asked) {
        Some((field, now, asked)) => Err(refusal::immutable(&entry.name, field, now, asked)),
        None => Ok(()),
    }
}

/// `Delete`: records that the namespace is to go. The entry that comes back is as it was before; in
/// the state `deleting` nothing was to be recorded.
///
/// # Errors
/// NOT_FOUND `NAMESPACE_NOT_FOUND`, INVALID_ARGUMENT `NAMESPACE_INVALID`, UNAVAILABLE
/// `CATALOG_UNAVAILABLE`.
pub(crate) fn delete(catalog: &mut Catalog, request: &admin::DeleteRequest) -> Result<CatalogEntry, Refusal> {
    check_request_name(&request.name)?;
    catalog.refresh().map_err(|error| refusal::of_catalog(&error))?;
    let entry = known(catalog, &request.name)?;
    if entry.state != NamespaceState::Deleting {
        catalog
            .begin_delete(&[entry.id])
            .map_err(|error| refusal::of_catalog(&error))?;
    }
    Ok(entry)
}

/// `Get`. `trouble` says why a namespace is not active yet.
///
/// # Errors
/// NOT_FOUND `NAMESPACE_NOT_FOUND`, INVALID_ARGUMENT `NAMESPACE_INVALID`, UNAVAILABLE
/// `CATALOG_UNAVAILABLE`.
pub(crate) fn get(
    catalog: &Catalog,
    request: &admin::GetRequest,
    trouble: impl Fn(u32) -> String,
) -> Result<admin::GetResponse, Refusal> {
    let entry = entry(catalog, &request.name)?;
    let trouble = trouble(entry.id);
    Ok(admin::GetResponse {
        namespace: Some(namespace_message(entry, trouble)),
    })
}

/// `List`, in the order of the names. The page token is the last name of the page before.
///
/// # Errors
/// INVALID_ARGUMENT `PAGE_INVALID` for a size above 1,000 or a foreign token, UNAVAILABLE
/// `CATALOG_UNAVAILABLE`.
pub(crate) fn list(
    catalog: &Catalog,
    request: &admin::ListRequest,
    trouble: impl Fn(u32) -> String,
) -> Result<admin::ListResponse, Refusal> {
    let size = match request.page_size {
        0 => PAGE_SIZE_DEFAULT,
        size @ 1..=PAGE_SIZE_MAX => size,
        size => {
            let what =
                format!("page_size is {size}; allowed: 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}");
            return Err(wrong_page(Problem::new("page_size", 0, what)));
        }
    };
    let after = std::str::from_utf8(&request.page_token)
        .ok()
        .filter(|name| name.is_empty() || check_name(name).is_ok());
    let Some(after) = after else {
        let what = "page_token is not one that List gave out";
        return Err(wrong_page(Problem::new("page_token", 0, what)));
    };
    // One more than requested shows whether there is another page.
    let mut entries = catalog
        .page(after, size + 1)
        .map_err(|error| refusal::of_catalog(&error))?;
    let more = entries.len() > size as usize;
    entries.truncate(size as usize);
    let next_page_token = match entries.last() {
        Some(last) if more => last.name.clone().into_bytes(),
        _ => Vec::new(),
    };
    let message = |entry: CatalogEntry| {
        let trouble = trouble(entry.id);
        namespace_message(entry, trouble)
    };
    Ok(admin::ListResponse {
        namespaces: entries.into_iter().map(message).collect(),
        next_page_token,
    })
}

/// The result of one namespace of a batch whose files were fine.
pub(super) fn batch_result(outcome: Outcome) -> admin::CreateBatchResult {
    match outcome.result {
        Ok(()) => admin::CreateBatchResult {
            status: Some(Status::default()),
            namespace: Some(admin::Namespace {
                yaml: String::new(),
                ..namespace_message(outcome.entry, String::new())
            }),
        },
        Err(status) => admin::CreateBatchResult {
            status: Some(GrpcStatus::to_proto(&status)),
            namespace: None,
        },
    }
}

/// Reads and checks a file, whichever store its namespace is to get.
pub(super) fn read(context: &ServiceContext, yaml: &str) -> Result<NamespaceConfig, Refusal> {
    let config = file::parse(yaml, &context.file).map_err(|problems| refusal::invalid(&problems))?;
    let missing = unsupported(&config);
    if !missing.is_empty() {
        return Err(refusal::unsupported(&config, &missing));
    }
    Ok(config)
}

/// Reads a file, picks a store, and makes the entry that the namespace would have, without an id.
fn check(context: &ServiceContext, now: SystemTime, yaml: &str) -> Result<CatalogEntry, Refusal> {
    let config = read(context, yaml)?;
    let store = context
        .stores
        .pick(&config)
        .map_err(|excuses| refusal::no_store(&config, &excuses))?;
    Ok(CatalogEntry {
        id: 0,
        name: config.name.clone(),
        team: config.team.clone(),
        client_api: config.client_api.to_string(),
        durability: config.durability().to_string(),
        backend: store.describe(&config.name),
        store: StoreRef {
            name: store.candidate.name.clone(),
            kind: store.candidate.kind.name().to_owned(),
        },
        create_time_ns: unix_nanos(now),
        yaml: yaml.to_owned(),
        state: NamespaceState::Provisioning,
        version: 1,
        pending: None,
    })
}

/// The namespace that a request names.
pub(super) fn entry(catalog: &Catalog, name: &str) -> Result<CatalogEntry, Refusal> {
    check_request_name(name)?;
    known(catalog, name)
}

fn known(catalog: &Catalog, name: &str) -> Result<CatalogEntry, Refusal> {
    match catalog.entry(name) {
        Ok(Some(entry)) => Ok(entry),
        Ok(None) => Err(refusal::not_found(name)),
        Err(error) => Err(refusal::of_catalog(&error)),
    }
}

fn check_request_name(name: &str) -> Result<(), Refusal> {
    check_name(name).map_err(|problem| {
        let problem = Problem {
            field: "name".to_owned(),
            ..problem
        };
        let message = problem.description.clone();
        refusal::bad_request("NAMESPACE_INVALID", &message, &[problem])
    })
}

fn wrong_page(problem: Problem) -> Refusal {
    let message = problem.description.clone();
    refusal::bad_request("PAGE_INVALID", &message, &[problem])
}

/// A namespace as it goes over the wire.
pub(super) fn namespace_message(entry: CatalogEntry, trouble: String) -> admin::Namespace {
    admin::Namespace {
        name: entry.name,
        team: entry.team,
        client_api: entry.client_api,
        durability: entry.durability,
        backend: entry.backend,
        create_time: Some(prost_types::Timestamp {
            seconds: entry.create_time_ns.div_euclid(1_000_000_000),
            nanos: i32::try_from(entry.create_time_ns.rem_euclid(1_000_000_000)).unwrap_or(0),
        }),
        yaml: entry.yaml,
        state: entry.state.to_string(),
        version: entry.version,
        trouble,
    }
}

fn unix_nanos(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
