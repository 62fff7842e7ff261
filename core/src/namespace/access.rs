//! Permissions of one namespace: a look-up by the caller's name, without an allocation.

use prism_codec::method::Permissions;
use rustc_hash::FxHashMap;

use super::model::{NamespaceConfig, Permission};

/// Permissions by service and by team. Who is in neither has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AccessList {
    services: FxHashMap<Box<str>, Permissions>,
    /// Teams whose members may do everything.
    owners: Vec<Box<str>>,
}

impl AccessList {
    /// The permissions that a namespace's file gives. Where it names no owners, its team is one.
    pub(crate) fn of(config: &NamespaceConfig) -> Self {
        let access = &config.access;
        let owners = access.owners.iter().map(|team| team.as_str().into());
        let mut owners: Vec<Box<str>> = owners.collect();
        if owners.is_empty() && !config.team.is_empty() {
            owners.push(config.team.as_str().into());
        }
        let services = access.consumers.iter().map(|consumer| {
            let all = consumer.permissions.iter().copied().map(bits);
            (
                consumer.service.as_str().into(),
                all.fold(Permissions::NONE, Permissions::and),
            )
        });
        Self {
            services: services.collect(),
            owners,
        }
    }

    /// The permissions of a service, which may be a member of a team.
    #[inline]
    pub(crate) fn permissions_of(&self, service: &str, team: Option<&str>) -> Permissions {
        let owns = team.is_some_and(|team| self.owners.iter().any(|owner| **owner == *team));
        match self.services.get(service) {
            _ if owns => Permissions::ADMIN,
            Some(permissions) => *permissions,
            None => Permissions::NONE,
        }
    }
}

fn bits(permission: Permission) -> Permissions {
    match permission {
        Permission::Read => Permissions::READ,
        Permission::Write => Permissions::WRITE,
        Permission::Admin => Permissions::ADMIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::file::{self, FileLimits};

    fn list(access: &str) -> AccessList {
        let yaml = format!("namespace: a\nteam: shop\nclient_api: keyvalue\n{access}");
        AccessList::of(&file::parse(&yaml, &FileLimits::NONE).expect("a legal file"))
    }

    #[test]
    fn owners_may_do_everything_consumers_what_the_file_says_and_others_nothing() {
        let list = list(
            "access:\n  owners: [{team: sales}]\n  consumers:\n  - service: web\n    permissions: [read, write]\n  \
             - service: report\n",
        );
        let of = |service, team| list.permissions_of(service, team);
        assert_eq!(of("any", Some("sales")), Permissions::ADMIN);
        assert_eq!(of("web", None), Permissions::READ.and(Permissions::WRITE));
        assert_eq!(of("report", None), Permissions::READ, "without permissions: read");
        // The team of a file that names owners, an administrator of the gateway, another team.
        for (service, team) in [("any", Some("shop")), ("any", None), ("Web", None)] {
            assert_eq!(of(service, team), Permissions::NONE, "{service} {team:?}");
        }
    }

    #[test]
    fn the_team_owns_where_no_owner_is_named() {
        assert_eq!(list("").permissions_of("any", Some("shop")), Permissions::ADMIN);
        assert_eq!(list("").permissions_of("any", None), Permissions::NONE);
    }
}
