//! Grants: another consumer in the text of a namespace file, whose other lines stay as they are.
//!
//! The part `access` is written anew, in the place of the old one or at the end. What comes out is
//! read again and compared, so a file that is written in an unusual way is refused, never changed
//! in another way.

use std::fmt::Write as _;

use super::file::{self, FileLimits};
use super::model::{Access, Consumer, NamespaceConfig, Permission};

/// The file with these permissions of a service in addition to those that it has.
///
/// # Errors
/// A sentence: the file is not legal, or its access cannot be changed.
pub fn grant(yaml: &str, service: &str, permissions: &[Permission]) -> Result<String, String> {
    change(yaml, |access| {
        let held = match access
            .consumers
            .iter_mut()
            .find(|consumer| consumer.service == service)
        {
            Some(consumer) => &mut consumer.permissions,
            None => {
                access.consumers.push(Consumer {
                    service: service.to_owned(),
                    permissions: Vec::new(),
                });
                let last = access.consumers.len() - 1;
                &mut access.consumers[last].permissions
            }
        };
        held.extend(permissions);
        held.sort_unstable();
        held.dedup();
        Ok(())
    })
}

/// The file without these permissions of a service; none named: without all of them.
///
/// # Errors
/// As for [`grant`]; the service is no consumer, or holds `admin`, of which no part can be taken.
pub fn revoke(yaml: &str, service: &str, permissions: &[Permission]) -> Result<String, String> {
    change(yaml, |access| {
        let place = access
            .consumers
            .iter()
            .position(|consumer| consumer.service == service);
        let place = place.ok_or_else(|| format!("{service} is no consumer of it"))?;
        let held = &mut access.consumers[place].permissions;
        let takes_admin = permissions.is_empty() || permissions.contains(&Permission::Admin);
        if held.contains(&Permission::Admin) && !takes_admin {
            return Err(format!(
                "{service} holds admin, which contains the others; revoke admin and grant what is to stay"
            ));
        }
        held.retain(|permission| !permissions.is_empty() && !permissions.contains(permission));
        if held.is_empty() {
            access.consumers.remove(place);
        }
        Ok(())
    })
}

fn change(yaml: &str, edit: impl FnOnce(&mut Access) -> Result<(), String>) -> Result<String, String> {
    let read = |yaml: &str| {
        file::parse(yaml, &FileLimits::NONE).map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            format!("its file is not legal: {}", first.unwrap_or_default())
        })
    };
    let before = read(yaml)?;
    let mut access = before.access.clone();
    edit(&mut access)?;
    let text = with_access(yaml, &access);
    let wanted = NamespaceConfig { access, ..before };
    match read(&text) {
        Ok(found) if found == wanted => Ok(text),
        _ => Err(
            "its file is written in a way that only its author can change; add the consumer below access, and update"
                .to_owned(),
        ),
    }
}

/// The text with another part `access`.
fn with_access(yaml: &str, access: &Access) -> String {
    let rendered = render(access);
    let mut text = String::with_capacity(yaml.len() + rendered.len() + 1);
    let (mut is_within, mut is_placed) = (false, false);
    for line in yaml.lines() {
        let is_top = line.starts_with(|letter: char| !matches!(letter, ' ' | '\t' | '#'));
        if is_top {
            is_within = line == "access:" || line.starts_with("access: ");
            if is_within {
                text.push_str(&rendered);
                is_placed = true;
            }
        }
        if !is_within {
            text.push_str(line);
            text.push('\n');
        }
    }
    if !is_placed {
        text.push_str(&rendered);
    }
    text
}

fn render(access: &Access) -> String {
    let mut text = String::new();
    if access.owners.is_empty() && access.consumers.is_empty() {
        return text;
    }
    text.push_str("access:\n");
    if !access.owners.is_empty() {
        text.push_str("  owners:\n");
        for owner in &access.owners {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    - team: {}", scalar(owner));
        }
    }
    if !access.consumers.is_empty() {
        text.push_str("  consumers:\n");
        for consumer in &access.consumers {
            let permissions: Vec<_> = consumer.permissions.iter().map(|one| one.as_str()).collect();
            let (service, permissions) = (scalar(&consumer.service), permissions.join(", "));
            let _ = writeln!(
                text,
                "    - service: {service}\n      permissions: [{permissions}]"
            );
        }
    }
    text
}

/// A name as a YAML scalar.
fn scalar(name: &str) -> String {
    let is_plain = name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    // Double quotes with JSON's escapes are YAML's, too. Words such as `true` are quoted as well.
    match is_plain && !matches!(name, "true" | "false" | "null" | "yes" | "no") {
        true => name.to_owned(),
        false => serde_json::to_string(name).unwrap_or_else(|_| name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "# ours\nnamespace: a\nteam: shop\nclient_api: keyvalue\n";

    fn consumers(yaml: &str) -> Vec<(String, Vec<Permission>)> {
        let config = file::parse(yaml, &FileLimits::NONE).expect("a legal file");
        let consumers = config.access.consumers.into_iter();
        consumers
            .map(|consumer| (consumer.service, consumer.permissions))
            .collect()
    }

    #[test]
    fn a_grant_adds_a_consumer_and_leaves_the_other_lines_alone() {
        let once = grant(PLAIN, "web", &[Permission::Read]).unwrap();
        assert!(once.starts_with(PLAIN), "{once}");
        let twice = grant(&once, "web", &[Permission::Write, Permission::Read]).unwrap();
        let held = vec![Permission::Read, Permission::Write];
        assert_eq!(consumers(&twice), [("web".to_owned(), held)]);
        let middle = "namespace: a\nclient_api: keyvalue\naccess: # who\n  owners: [{team: b}]\n\nneeds:\n  # much\n  \
                      write_rps: 5\n";
        let granted = grant(middle, "it's:odd", &[Permission::Admin]).unwrap();
        assert!(
            granted.ends_with("needs:\n  # much\n  write_rps: 5\n"),
            "{granted}"
        );
        assert!(granted.contains("    - team: b\n"), "{granted}");
        assert_eq!(consumers(&granted)[0].0, "it's:odd");
    }

    #[test]
    fn a_revoke_takes_what_is_named_or_all_and_says_what_it_cannot_take() {
        let both = grant(PLAIN, "web", &[Permission::Read, Permission::Write]).unwrap();
        let read = revoke(&both, "web", &[Permission::Write]).unwrap();
        assert_eq!(consumers(&read), [("web".to_owned(), vec![Permission::Read])]);
        assert_eq!(revoke(&both, "web", &[]).unwrap(), PLAIN);
        let said = revoke(PLAIN, "web", &[]).unwrap_err();
        assert!(said.contains("web is no consumer"), "{said}");
        let admin = grant(PLAIN, "web", &[Permission::Admin]).unwrap();
        let said = revoke(&admin, "web", &[Permission::Read]).unwrap_err();
        assert!(said.contains("holds admin"), "{said}");
    }

    #[test]
    fn a_file_in_another_form_is_refused_and_not_changed_otherwise() {
        for odd in [
            "{namespace: a, client_api: keyvalue}\n",
            "  namespace: a\n  client_api: keyvalue\n",
        ] {
            let said = grant(odd, "web", &[Permission::Read]).unwrap_err();
            assert!(said.contains("only its author can change"), "{said}");
        }
        assert!(
            grant("client_api: keyvalue\n", "web", &[])
                .unwrap_err()
                .contains("not legal")
        );
    }
}
