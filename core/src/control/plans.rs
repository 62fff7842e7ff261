//! `Plan` and `Apply` of `prism.admin.v1.Namespaces`: what is shown is what is done, by its hash.

use std::time::SystemTime;

use prism_codec::proto::prism::admin::v1 as admin;

use super::{
    catalog::{Catalog, CatalogEntry},
    provision::Action,
    refusal::{self, Refusal},
    service::{self, ServiceContext, check_fixed, read},
};
use crate::{
    namespace::{problem::Problem, state::NamespaceState},
    plan::{self, Current, Plan, Wanted},
};

/// A plan with its hash, and the namespace that it starts from.
struct Planned {
    plan: Plan,
    hash: String,
    entry: Option<CatalogEntry>,
}

/// `Plan`: what would be made of a file.
///
/// # Errors
/// As for Create where the namespace is new, and for Update where it is not.
pub(super) fn plan(
    context: &ServiceContext,
    catalog: &mut Catalog,
    shards: usize,
    request: &admin::PlanRequest,
) -> Result<admin::PlanResponse, Refusal> {
    let Planned { plan, hash, .. } = planned(context, catalog, shards, &request.yaml)?;
    Ok(admin::PlanResponse {
        plan: Some(plan_message(plan, hash)),
    })
}

/// Outcome of [`apply`].
#[derive(Debug)]
pub(super) enum Applied {
    /// There is nothing to do.
    Nothing(Box<CatalogEntry>),
    /// It is recorded and is to be carried out.
    Begun(Action, Box<CatalogEntry>),
}

/// `Apply`: records what a plan says, if the gateway still plans so.
///
/// # Errors
/// FAILED_PRECONDITION `PLAN_CHANGED`, INVALID_ARGUMENT `INVALID_FIELD`; as for Create and Update.
pub(super) fn apply(
    context: &ServiceContext,
    catalog: &mut Catalog,
    shards: usize,
    now: SystemTime,
    request: &admin::ApplyRequest,
) -> Result<Applied, Refusal> {
    check_hash(&request.plan)?;
    let Planned { plan, hash, entry } = planned(context, catalog, shards, &request.yaml)?;
    if hash != request.plan {
        return Err(refusal::plan_changed(&plan.namespace, &hash));
    }
    let yaml = request.yaml.clone();
    match (plan.action, entry) {
        (plan::Action::None, Some(entry)) => Ok(Applied::Nothing(Box::new(entry))),
        (plan::Action::Create | plan::Action::None, _) => {
            let request = admin::CreateRequest { yaml };
            let entry = service::create(context, catalog, now, &request)?;
            Ok(Applied::Begun(Action::Create, Box::new(entry)))
        }
        (plan::Action::Update, _) => {
            let request = admin::UpdateRequest {
                yaml,
                base_version: plan.base_version,
            };
            let entry = service::update(context, catalog, &request)?;
            Ok(Applied::Begun(Action::Update, Box::new(entry)))
        }
    }
}

fn planned(
    context: &ServiceContext,
    catalog: &mut Catalog,
    shards: usize,
    yaml: &str,
) -> Result<Planned, Refusal> {
    let config = read(context, yaml)?;
    catalog.refresh().map_err(|error| refusal::of_catalog(&error))?;
    let entry = catalog.entry(&config.name);
    let entry = entry.map_err(|error| refusal::of_catalog(&error))?;
    let before = match &entry {
        None => None,
        Some(entry) if entry.state != NamespaceState::Active => {
            return Err(refusal::out_of_service(&entry.name, entry.state));
        }
        Some(entry) => {
            check_fixed(entry, &config)?;
            Some(entry.config().map_err(|error| refusal::of_catalog(&error))?)
        }
    };
    let current = entry
        .as_ref()
        .zip(before.as_ref())
        .map(|(entry, config)| Current {
            store: &entry.store.name,
            config,
            version: entry.version,
        });
    let wanted = Wanted {
        config: &config,
        yaml,
        current,
        shards,
    };
    let plan = context.stores.plan(&wanted);
    let plan = plan.map_err(|excuses| refusal::no_store(&config, &excuses))?;
    let hash = plan.hash(yaml);
    Ok(Planned { plan, hash, entry })
}

fn check_hash(plan: &str) -> Result<(), Refusal> {
    let digits = plan.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let shown: String = plan.chars().take(80).collect();
    let what = format!(
        "{shown:?} is not the hash of a plan; allowed: \"sha256:\" and 64 hexadecimal digits, as `prism namespace plan` prints it"
    );
    let problem = Problem::new("plan", 0, &*what);
    Err(refusal::bad_request("INVALID_FIELD", &what, &[problem]))
}

fn plan_message(plan: Plan, hash: String) -> admin::Plan {
    let decisions = plan.decisions.into_iter().map(|decision| admin::PlanDecision {
        title: decision.title.to_owned(),
        field: decision.field.to_owned(),
        value: decision.value,
        rule: decision.rule.to_owned(),
        because: decision.because.to_owned(),
        reason: decision.reason,
    });
    let changes = plan.changes.into_iter().map(|change| admin::PlanChange {
        field: change.field.to_owned(),
        title: change.title.to_owned(),
        before: change.before,
        after: change.after,
    });
    let rejected = plan.rejected.into_iter().map(|rejection| admin::PlanRejection {
        store: rejection.store,
        title: rejection.title,
        rule: rejection.rule.to_owned(),
        reason: rejection.sentence,
    });
    admin::Plan {
        namespace: plan.namespace,
        action: plan.action.as_str().to_owned(),
        hash,
        base_version: plan.base_version,
        store: plan.store,
        backend: plan.backend,
        decisions: decisions.collect(),
        changes: changes.collect(),
        rejected: rejected.collect(),
        assumed: plan.assumed,
        warnings: plan.warnings,
        bytes_max: plan.bytes_max.unwrap_or(0),
        cost: plan.cost,
        steps: plan.steps,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        config::{EmbeddedStore, ServeOptions},
        control::stores::Stores,
        namespace::file::FileLimits,
    };

    const YAML: &str = "namespace: a\nclient_api: keyvalue\nneeds: {write_rps: 100}\n";

    fn context() -> ServiceContext {
        let options = ServeOptions {
            embedded: EmbeddedStore::Sqlite,
            ..ServeOptions::default()
        };
        ServiceContext {
            file: FileLimits::default(),
            namespaces_max: 10,
            stores: Stores::of(&options, None),
        }
    }

    fn hash_of(catalog: &mut Catalog, yaml: &str) -> (String, String) {
        let request = admin::PlanRequest { yaml: yaml.into() };
        let plan = plan(&context(), catalog, 2, &request).expect("a plan").plan;
        let plan = plan.expect("it is set");
        (plan.action, plan.hash)
    }

    fn apply_plan(catalog: &mut Catalog, yaml: &str, plan: &str) -> Result<Applied, Refusal> {
        let request = admin::ApplyRequest {
            yaml: yaml.into(),
            plan: plan.into(),
        };
        apply(&context(), catalog, 2, UNIX_EPOCH, &request)
    }

    fn activate(catalog: &mut Catalog, applied: Applied) {
        let Applied::Begun(_, entry) = applied else {
            panic!("nothing was begun")
        };
        catalog.activate(&[entry.id]).expect("recorded");
    }

    #[test]
    fn the_plan_that_was_shown_is_applied_and_no_other() {
        let mut catalog = Catalog::in_memory().unwrap();
        let (action, hash) = hash_of(&mut catalog, YAML);
        assert_eq!(
            (&*action, hash_of(&mut catalog, YAML).1 == hash),
            ("create", true)
        );
        // One letter of the file is another plan.
        let other = YAML.replace("100", "200");
        let refusal = apply_plan(&mut catalog, &other, &hash).unwrap_err();
        assert!(
            refusal.message.contains("nothing was done"),
            "{}",
            refusal.message
        );
        assert!(catalog.entry("a").unwrap().is_none());
        for wrong in ["", "sha256:", "sha256:zz", &hash[..hash.len() - 1]] {
            let refusal = apply_plan(&mut catalog, YAML, wrong).unwrap_err();
            assert!(refusal.message.contains("is not the hash of a plan"), "{wrong}");
        }
        let applied = apply_plan(&mut catalog, YAML, &hash).unwrap();
        activate(&mut catalog, applied);
        // The plan of the same file is now that nothing is to be done, and the old one is void.
        assert!(apply_plan(&mut catalog, YAML, &hash).is_err());
        let (action, hash) = hash_of(&mut catalog, YAML);
        assert_eq!(action, "none");
        assert!(matches!(
            apply_plan(&mut catalog, YAML, &hash),
            Ok(Applied::Nothing(_))
        ));
        let (action, hash) = hash_of(&mut catalog, &other);
        assert_eq!(action, "update");
        assert!(matches!(
            apply_plan(&mut catalog, &other, &hash),
            Ok(Applied::Begun(Action::Update, _))
        ));
        // While it is under way there is no other plan.
        let request = admin::PlanRequest { yaml: YAML.into() };
        let refusal = plan(&context(), &mut catalog, 2, &request).unwrap_err();
        assert!(refusal.message.contains("is updating"), "{}", refusal.message);
    }
}
