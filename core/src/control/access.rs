//! Calls of the administration, and who may make them. Without identity: everybody.
//!
//! | call | who |
//! |---|---|
//! | Validate | whoever is known |
//! | List | whoever is known, and sees what Get would show |
//! | Get, Status | who may read the namespace; viewers and administrators of the gateway |
//! | Update, Delete, Plan and Apply of one that exists | its administrators and those of the gateway |
//! | Create, Plan and Apply of one that does not exist | members of its team; administrators of the gateway |
//! | dead letters | administrators of the gateway |

use prism_codec::{
    grpc::{Code, Status},
    method::{NamespacesMethod, Permissions},
    proto::prism::admin::v1::{
        ApplyRequest, CreateBatchRequest, CreateRequest, DeleteRequest, GetRequest, Namespace, PlanRequest,
        StatusRequest, UpdateRequest,
    },
};

use super::{Control, catalog::Catalog, decode};
use crate::{
    call::{error, method::AdminMethod},
    identity::Caller,
    namespace::{
        NamespaceConfig,
        access::AccessList,
        file::{self, FileLimits},
        grant,
        model::Permission,
    },
};

impl Control {
    /// Checks whether a caller may make this call.
    ///
    /// # Errors
    /// PERMISSION_DENIED `ACCESS_DENIED`, the same for a namespace that does not exist.
    pub(super) fn check_call(
        &self,
        caller: &Caller,
        method: AdminMethod,
        body: &[u8],
    ) -> Result<(), Box<Status>> {
        if caller.is_admin {
            return Ok(());
        }
        let AdminMethod::Namespaces(method) = method else {
            return Err(error::access_denied());
        };
        let judge = Judge {
            catalog: &self.catalog,
            caller,
        };
        match method {
            NamespacesMethod::Validate | NamespacesMethod::List => Ok(()),
            NamespacesMethod::Get => {
                let request: GetRequest = decode(body)?;
                judge.may(&request.name, Permissions::READ)
            }
            NamespacesMethod::Status => {
                let request: StatusRequest = decode(body)?;
                judge.may(&request.name, Permissions::READ)
            }
            NamespacesMethod::Delete => {
                let request: DeleteRequest = decode(body)?;
                judge.may(&request.name, Permissions::ADMIN)
            }
            NamespacesMethod::Update => {
                let request: UpdateRequest = decode(body)?;
                match read(&request.yaml) {
                    Some(config) => judge.may(&config.name, Permissions::ADMIN),
                    None => Ok(()),
                }
            }
            NamespacesMethod::Create => {
                let request: CreateRequest = decode(body)?;
                judge.may_create(&request.yaml)
            }
            NamespacesMethod::CreateBatch => {
                let request: CreateBatchRequest = decode(body)?;
                request.yamls.iter().try_for_each(|yaml| judge.may_create(yaml))
            }
            NamespacesMethod::Plan => {
                let request: PlanRequest = decode(body)?;
                judge.may_make(&request.yaml)
            }
            NamespacesMethod::Apply => {
                let request: ApplyRequest = decode(body)?;
                judge.may_make(&request.yaml)
            }
        }
    }
}

/// Whether a caller sees a namespace in a list.
pub(super) fn sees(caller: &Caller, namespace: &Namespace) -> bool {
    let held = || read(&namespace.yaml).map(|config| held_by(caller, &config));
    caller.is_viewer || held().is_some_and(|held| held.allow(Permissions::READ))
}

/// The file of a new namespace, which belongs to its creator where it names neither team nor
/// owners.
///
/// # Errors
/// INVALID_ARGUMENT `NAMESPACE_INVALID`: it names nobody, and is written so that nobody can be
/// added.
pub(super) fn owned_by(caller: Option<&Caller>, yaml: String) -> Result<String, Box<Status>> {
    let (Some(caller), Some(config)) = (caller, read(&yaml)) else {
        return Ok(yaml);
    };
    if !config.team.is_empty() || !config.access.owners.is_empty() {
        return Ok(yaml);
    }
    grant::grant(&yaml, &caller.service, &[Permission::Admin]).map_err(|_| {
        let what = "team is missing: with identity a namespace belongs to a team or to its creator, who cannot be added to \
                    this file by itself";
        let status = Status::new(Code::InvalidArgument, what);
        Box::new(status.with_reason("NAMESPACE_INVALID", &[]))
    })
}

/// The configuration of a file; `None` if it is not legal, which the call itself will answer.
fn read(yaml: &str) -> Option<NamespaceConfig> {
    file::parse(yaml, &FileLimits::NONE).ok()
}

fn held_by(caller: &Caller, config: &NamespaceConfig) -> Permissions {
    AccessList::of(config).permissions_of(&caller.service, caller.team.as_deref())
}

struct Judge<'a> {
    catalog: &'a Catalog,
    caller: &'a Caller,
}

impl Judge<'_> {
    /// Checks the permission for a namespace that must exist.
    fn may(&self, name: &str, needed: Permissions) -> Result<(), Box<Status>> {
        let entry = self.catalog.entry(name).ok().flatten();
        let config = entry.and_then(|entry| entry.config().ok());
        let held = config.map(|config| held_by(self.caller, &config));
        let shown = held.is_some() && self.caller.is_viewer && Permissions::READ.allow(needed);
        match shown || held.is_some_and(|held| held.allow(needed)) {
            true => Ok(()),
            false => Err(error::access_denied()),
        }
    }

    /// Checks the membership of the team of a file. One without a team may be anybody's.
    fn may_create(&self, yaml: &str) -> Result<(), Box<Status>> {
        let Some(config) = read(yaml) else {
            return Ok(());
        };
        let is_free = config.team.is_empty() && config.access.owners.is_empty();
        // Who writes a file cannot make a member of itself by naming itself as a consumer.
        let mut without = config;
        without.access.consumers.clear();
        match is_free || held_by(self.caller, &without).allow(Permissions::ADMIN) {
            true => Ok(()),
            false => Err(error::access_denied()),
        }
    }

    /// Checks a file that makes a namespace, or changes the one of its name.
    fn may_make(&self, yaml: &str) -> Result<(), Box<Status>> {
        let name = read(yaml).map(|config| config.name);
        match name.filter(|name| matches!(self.catalog.entry(name), Ok(Some(_)))) {
            Some(name) => self.may(&name, Permissions::ADMIN),
            None => self.may_create(yaml),
        }
    }
}
