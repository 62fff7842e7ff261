//! Refusals of the calls of `prism.admin.v1`: each a `google.rpc.Status` with `ErrorInfo` (domain
//! `prism`), and with `BadRequest` and one `prism.admin.v1.Problem` for each problem where a file
//! is at fault.

use std::collections::HashMap;

use prism_backends::kind::StoreKind;
use prism_codec::{
    grpc::Status as GrpcStatus,
    proto::{
        google::rpc::{BadRequest, ErrorInfo, Status, bad_request::FieldViolation},
        prism::admin::v1 as admin,
    },
};
use prost::Message;

use super::{catalog::CatalogError, provision::Action};
use crate::namespace::{
    NamespaceConfig,
    problem::{PROBLEM_TYPE_URL, Problem, descriptions},
    state::NamespaceState,
};
use crate::plan::{Excuse, Rule};

/// A refusal. Boxed, since it is large and rare.
pub(crate) type Refusal = Box<Status>;

/// Numbers of the gRPC codes that these calls answer with.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
}

/// Most problems that one refusal carries; `Validate` answers with all.
const PROBLEMS_SENT_MAX: usize = 10;
/// Most excuses that one refusal carries: all of it travels in one header.
const EXCUSES_SENT_MAX: usize = 10;

/// The refusal of a file with problems. With one problem its sentence is the message, word for
/// word.
pub(super) fn invalid(problems: &[Problem]) -> Refusal {
    let message = match problems {
        [only] => only.description.clone(),
        _ => {
            let first = problems.first().map_or(String::new(), ToString::to_string);
            format!(
                "the namespace file has {} problems; the first: {first}",
                problems.len()
            )
        }
    };
    let count = problems.len().to_string();
    let mut refusal = refusal(
        code::INVALID_ARGUMENT,
        "NAMESPACE_INVALID",
        &message,
        // The details may hold fewer.
        &[("problems", &count)],
    );
    attach_problems(&mut refusal, problems);
    refusal
}

/// The refusal of a file that asks for what this version does not do.
pub(super) fn unsupported(config: &NamespaceConfig, missing: &[Problem]) -> Refusal {
    // What to do instead is in the details, once.
    let message = format!(
        "namespace \"{}\" is valid but cannot be created: {}",
        config.name,
        descriptions(missing)
    );
    let mut refusal = refusal(
        code::UNIMPLEMENTED,
        "NAMESPACE_UNSUPPORTED",
        &message,
        &[("namespace", &config.name)],
    );
    attach_problems(&mut refusal, missing);
    refusal
}

/// The refusal of needs that no store can keep, with an excuse for each: better when they are asked
/// for than broken later.
pub(super) fn no_store(config: &NamespaceConfig, excuses: &[Excuse]) -> Refusal {
    let all = |rule: Rule| excuses.iter().all(|excuse| excuse.rule == rule);
    let (code, reason) = if all(Rule::NotThisApi) {
        (code::UNIMPLEMENTED, "NAMESPACE_UNSUPPORTED")
    } else if all(Rule::Durability) {
        (code::FAILED_PRECONDITION, "DURABILITY_IMPOSSIBLE")
    } else {
        (code::FAILED_PRECONDITION, "NO_STORE")
    };
    let each = excuses.iter().take(EXCUSES_SENT_MAX);
    let mut sentences: Vec<_> = each
        .clone()
        .map(|excuse| format!("{}: {}", excuse.title, excuse.sentence))
        .collect();
    if excuses.len() > EXCUSES_SENT_MAX {
        sentences.push(format!("and {} more", excuses.len() - EXCUSES_SENT_MAX));
    }
    let note = match (reason, config.needs.durability) {
        ("DURABILITY_IMPOSSIBLE", None) => " (where none is declared, durability strong holds)",
        _ => "",
    };
    let is_volatile = |excuse: &Excuse| excuse.kind == StoreKind::Memory;
    let advice = match reason {
        "DURABILITY_IMPOSSIBLE" if excuses.iter().all(is_volatile) => {
            "; write durability: best-effort, or give the gateway a disk: start it with --embedded sqlite"
        }
        _ => "",
    };
    let message = format!(
        "namespace \"{}\" cannot be created{note}: {}{advice}",
        config.name,
        sentences.join("; ")
    );
    let durability = config.durability();
    let mut metadata = vec![
        ("namespace", config.name.as_str()),
        ("client_api", config.client_api.as_str()),
        ("durability", durability.as_str()),
    ];
    // A program finds the rule that each store breaks under its name.
    let keys: Vec<_> = each
        .clone()
        .map(|excuse| format!("store-{}", excuse.store))
        .collect();
    let rules = each.map(|excuse| excuse.rule.code());
    metadata.extend(keys.iter().map(String::as_str).zip(rules));
    refusal(code, reason, &message, &metadata)
}

/// The refusal of a name that is not free.
pub(super) fn taken(name: &str, state: NamespaceState) -> Refusal {
    match state {
        NamespaceState::Deleting => out_of_service(name, state),
        NamespaceState::Provisioning => exists(name, " and is being prepared"),
        NamespaceState::Active | NamespaceState::Updating => exists(name, ""),
    }
}

fn exists(name: &str, how: &str) -> Refusal {
    refusal(
        code::ALREADY_EXISTS,
        "NAMESPACE_EXISTS",
        &format!("Namespace \"{name}\" already exists{how}"),
        &[("namespace", name)],
    )
}

/// The refusal of a change of a namespace that another change is under way for.
pub(super) fn out_of_service(name: &str, state: NamespaceState) -> Refusal {
    let namespace = [("namespace", name)];
    match state {
        NamespaceState::Deleting => refusal(
            code::FAILED_PRECONDITION,
            "NAMESPACE_DELETING",
            &format!(
                "namespace \"{name}\" is being deleted, and its name is free when that is done; nothing was done, try again \
                 later (`prism namespace show {name}` says how far it is)"
            ),
            &namespace,
        ),
        _ => refusal(
            code::UNAVAILABLE,
            "NAMESPACE_NOT_READY",
            &format!(
                "namespace \"{name}\" is {state}; nothing was done, try again when it is active (`prism namespace show {name}` \
                 says how far it is)"
            ),
            &namespace,
        ),
    }
}

/// The refusal of an update of another version than the caller has seen.
pub(super) fn version_changed(name: &str, seen: u64, version: u64) -> Refusal {
    let message = format!(
        "namespace \"{name}\" has version {version}, and the update was made for version {seen}: somebody else has changed \
         it; nothing was done, look at it again (`prism namespace show {name}`)"
    );
    refusal(
        code::ABORTED,
        "VERSION_CHANGED",
        &message,
        &[("namespace", name), ("version", &version.to_string())],
    )
}

/// The refusal of a plan that is not what the gateway would do by now.
pub(super) fn plan_changed(name: &str, plan: &str) -> Refusal {
    let message = format!(
        "the gateway would plan namespace \"{name}\" in another way by now: the file, the namespace or the stores have changed \
         since; nothing was done, look at the plan again (`prism namespace plan FILE`)"
    );
    refusal(
        code::FAILED_PRECONDITION,
        "PLAN_CHANGED",
        &message,
        &[("namespace", name), ("plan", plan)],
    )
}

/// The refusal of an update of what a namespace keeps for its whole life.
pub(super) fn immutable(name: &str, field: &str, now: &str, asked: &str) -> Refusal {
    let description = format!(
        "{field} of namespace \"{name}\" is {now} and cannot become {asked}; nothing was done: create another namespace, and \
         move the data"
    );
    let mut refusal = refusal(
        code::FAILED_PRECONDITION,
        "IMMUTABLE_FIELD",
        &description,
        &[("namespace", name), ("field", field)],
    );
    attach_problems(&mut refusal, &[Problem::new(field, 0, &*description)]);
    refusal
}

/// The refusal of a name that no namespace has.
pub(super) fn not_found(name: &str) -> Refusal {
    let message = format!("Namespace \"{name}\" does not exist");
    refusal(
        code::NOT_FOUND,
        "NAMESPACE_NOT_FOUND",
        &message,
        &[("namespace", name)],
    )
}

/// The answer of a file that is fine, and whose batch has others that are not.
pub(super) fn others_refused(name: &str, refused: usize) -> Refusal {
    let message = format!(
        "namespace \"{name}\" was not created, because {refused} other files of the call were refused; nothing was done"
    );
    refusal(code::ABORTED, "BATCH_REFUSED", &message, &[("namespace", name)])
}

/// The refusal of a second file with the same name in a batch.
pub(super) fn twice(name: &str, first: usize) -> Refusal {
    let problem = Problem::new(
        "namespace",
        0,
        format!("namespace \"{name}\" is also that of file {first} of the call (counted from 0)"),
    );
    bad_request(
        "NAMESPACE_INVALID",
        &problem.description,
        std::slice::from_ref(&problem),
    )
}

/// The end of a create or update whose namespace somebody deleted.
pub(super) fn deleted_meanwhile(name: &str) -> Box<GrpcStatus> {
    let message = format!("namespace \"{name}\" was deleted before this was done");
    let refusal = refusal(
        code::ABORTED,
        "NAMESPACE_DELETED",
        &message,
        &[("namespace", name)],
    );
    Box::new(GrpcStatus::from_proto(*refusal))
}

/// The end of a change that another gateway goes on with.
pub(super) fn taken_over(name: &str) -> Box<GrpcStatus> {
    let message = format!(
        "another gateway goes on with the change of namespace \"{name}\", since this one was silent for too long; `prism \
         namespace show {name}` says how far it is"
    );
    let refusal = refusal(
        code::UNAVAILABLE,
        "NAMESPACE_NOT_READY",
        &message,
        &[("namespace", name)],
    );
    Box::new(GrpcStatus::from_proto(*refusal))
}

/// The answer to a caller who does not wait any longer for a change, which goes on.
pub(super) fn still_under_way(action: Action, name: &str, trouble: Option<&str>) -> Box<GrpcStatus> {
    let (what, reason) = match action {
        Action::Create => ("still being provisioned", "NAMESPACE_PROVISIONING"),
        Action::Update => ("still being updated", "NAMESPACE_UPDATING"),
        Action::Delete => ("still being deleted", "NAMESPACE_DELETING"),
    };
    let cause = trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
    let message = format!(
        "namespace \"{name}\" is {what}{cause}; that is recorded and goes on: `prism namespace show {name}` says how far it is"
    );
    let refusal = refusal(code::DEADLINE_EXCEEDED, reason, &message, &[("namespace", name)]);
    Box::new(GrpcStatus::from_proto(*refusal))
}

/// The refusal of a change when as many are under way as may be.
pub(super) fn too_many_changes(max: usize) -> Refusal {
    let message = format!(
        "{max} changes of namespaces are under way, the most that may be; nothing was done, try again in a moment"
    );
    refusal(
        code::RESOURCE_EXHAUSTED,
        "OVERLOADED",
        &message,
        &[("limit", &max.to_string())],
    )
}

/// The one place where the catalog's errors become gRPC status.
pub(super) fn of_catalog(error: &CatalogError) -> Refusal {
    let (code, reason) = match error {
        CatalogError::Full { .. } => (code::RESOURCE_EXHAUSTED, "NAMESPACES_FULL"),
        _ => (code::UNAVAILABLE, "CATALOG_UNAVAILABLE"),
    };
    refusal(code, reason, &error.to_string(), &[])
}

/// The refusal of a request with wrong fields.
pub(super) fn bad_request(reason: &str, message: &str, problems: &[Problem]) -> Refusal {
    let mut refusal = refusal(code::INVALID_ARGUMENT, reason, message, &[]);
    attach_problems(&mut refusal, problems);
    refusal
}

fn refusal(code: i32, reason: &str, message: &str, metadata: &[(&str, &str)]) -> Refusal {
    let metadata: HashMap<_, _> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let info = ErrorInfo {
        reason: reason.to_owned(),
        domain: "prism".to_owned(),
        metadata,
    };
    let details = vec![any("type.googleapis.com/google.rpc.ErrorInfo", &info)];
    Box::new(Status {
        code,
        message: message.to_owned(),
        details,
    })
}

fn attach_problems(refusal: &mut Status, problems: &[Problem]) {
    // All details travel in one header; a file with hundreds of problems must not burst the header
    // list.
    let problems = &problems[..problems.len().min(PROBLEMS_SENT_MAX)];
    let violation = |problem: &Problem| FieldViolation {
        field: problem.field.clone(),
        description: problem.description.clone(),
    };
    let violations = BadRequest {
        field_violations: problems.iter().map(violation).collect(),
    };
    refusal
        .details
        .push(any("type.googleapis.com/google.rpc.BadRequest", &violations));
    let messages = problems.iter().cloned().map(problem_message);
    refusal
        .details
        .extend(messages.map(|problem| any(PROBLEM_TYPE_URL, &problem)));
}

fn any(type_url: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

/// A problem as it goes over the wire.
pub(super) fn problem_message(problem: Problem) -> admin::Problem {
    let Problem {
        field,
        description,
        suggestion,
        line,
    } = problem;
    admin::Problem {
        field,
        description,
        suggestion,
        line,
    }
}
