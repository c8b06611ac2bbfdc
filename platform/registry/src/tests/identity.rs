//! Users, tokens and sessions.

use std::time::Duration;

use jiff::SignedDuration;
use model::{Provided, Rights, Role};

use super::*;
use crate::{Bearer, Digest, Kept, NewToken, UserChange};

fn digest(text: &str) -> Digest {
    Digest(text.to_owned())
}

fn token(of: &str) -> NewToken {
    NewToken { name: name(of), role: Role::Operator, user: None, project: None, expires: None }
}

fn bearer(registry: &Registry, secret: &str) -> Option<Bearer> {
    registry.bearer(&digest(secret), NOW).unwrap()
}

fn user(registry: &Registry, of: &str, rights: Rights) -> Kept<model::User> {
    registry.create_user(name(of), rights, Some("hash".into()), NOW).unwrap()
}

#[test]
fn a_token_is_good_until_it_expires_or_is_deleted() {
    let (registry, _folder) = registry();
    let later = NOW + SignedDuration::from_secs(60);
    let new = NewToken { expires: Some(later), ..token("ci") };
    registry.create_token(new.clone(), digest("d"), NOW).unwrap();
    let again = registry.create_token(new, digest("e"), NOW);
    assert!(matches!(again, Err(RegistryError::Exists { kind: "token", .. })));
    let good = bearer(&registry, "d").unwrap();
    assert_eq!((good.who.as_str(), good.expires), ("token:ci", Some(later)));
    assert_eq!(good.rights, Rights::everywhere(Role::Operator));
    assert_eq!(registry.bearer(&digest("d"), later).unwrap(), None);
    assert_eq!(bearer(&registry, "e"), None);
    registry.delete_token(&name("ci")).unwrap();
    assert_eq!(bearer(&registry, "d"), None);
}

#[test]
fn a_users_token_may_what_the_user_may_and_goes_with_them() {
    let (registry, _folder) = registry();
    user(&registry, "eve", Rights::within(name("default"), Role::Viewer));
    let of = NewToken { user: Some(name("eve")), ..token("eves") };
    registry.create_token(of, digest("d"), NOW).unwrap();
    let nobody = NewToken { user: Some(name("adam")), ..token("adams") };
    assert!(matches!(
        registry.create_token(nobody, digest("a"), NOW),
        Err(RegistryError::Missing { kind: "user", .. })
    ));
    let viewer = Rights::within(name("default"), Role::Viewer);
    assert_eq!(bearer(&registry, "d").unwrap().rights, viewer);
    registry.set_member(&name("default"), "eve", None).unwrap();
    assert_eq!(bearer(&registry, "d").unwrap().rights, Rights::default());
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    registry.change_user("eve", &disabled, None).unwrap();
    assert_eq!(bearer(&registry, "d"), None);
    registry.delete_user("eve", None).unwrap();
    // Somebody else of that name has nothing of hers.
    user(&registry, "eve", Rights::everywhere(Role::Admin));
    assert_eq!(bearer(&registry, "d"), None);
    assert!(registry.tokens(None).unwrap().0.is_empty());
}

#[test]
fn a_session_ends_with_its_time_its_users_password_and_its_user() {
    let (registry, _folder) = registry();
    let begin = |secret: &str| {
        let eve = registry.user("eve").unwrap();
        registry.begin_session(&eve, &digest(secret), Duration::from_secs(3600), NOW).unwrap();
    };
    user(&registry, "eve", Rights::everywhere(Role::Viewer));
    begin("a");
    assert_eq!(bearer(&registry, "a").unwrap().who, "user:eve");
    let later = NOW + SignedDuration::from_secs(3600);
    assert_eq!(registry.bearer(&digest("a"), later).unwrap(), None);
    registry.end_session(&digest("a")).unwrap();
    assert_eq!(bearer(&registry, "a"), None);
    begin("b");
    registry.set_password("eve", Some("other")).unwrap();
    assert_eq!(bearer(&registry, "b"), None);
    let kept = registry.password_of("eve").unwrap().unwrap();
    assert_eq!(kept.password.as_deref(), Some("other"));
    begin("c");
    registry.delete_user("eve", None).unwrap();
    assert_eq!(bearer(&registry, "c"), None);
    assert!(registry.password_of("eve").unwrap().is_none());
}

#[test]
fn who_comes_from_a_provider_is_known_by_their_subject_and_takes_nobodys_name() {
    let (registry, _folder) = registry();
    let provided = |subject: &str, role| Provided {
        issuer: "https://id.example".into(),
        subject: subject.into(),
        rights: Rights::everywhere(role),
    };
    user(&registry, "root", Rights::everywhere(Role::Admin));
    let taken = registry.provide_user(&name("root"), provided("1", Role::Viewer), NOW);
    assert!(matches!(taken, Err(RegistryError::Exists { kind: "user", .. })));
    let eve = registry.provide_user(&name("eve"), provided("1", Role::Viewer), NOW).unwrap();
    // Under another name she is the same, with what her groups give now and what was given here.
    registry.set_member(&name("default"), "eve", Some(Role::Admin)).unwrap();
    let again = registry.provide_user(&name("eva"), provided("1", Role::Operator), NOW).unwrap();
    assert_eq!((again.object.id, &again.object.name), (eve.object.id, &name("eve")));
    let rights = again.object.all_rights();
    assert_eq!(rights.role_in(&name("default")), Some(Role::Admin));
    assert_eq!(rights.everywhere, Some(Role::Operator));
}

#[test]
fn a_project_of_a_former_ones_name_has_none_of_its_members_and_tokens() {
    let (registry, _folder) = registry();
    let other = || registry.create_project(name("other"), Quota::default(), NOW).unwrap();
    other();
    user(&registry, "eve", Rights::within(name("other"), Role::Admin));
    let nowhere = Rights::within(name("none"), Role::Admin);
    let nowhere = registry.create_user(name("adam"), nowhere, None, NOW);
    assert!(matches!(nowhere, Err(RegistryError::Missing { kind: "project", .. })));
    let of = NewToken { project: Some(name("other")), ..token("its") };
    registry.create_token(of, digest("d"), NOW).unwrap();
    assert_eq!(
        bearer(&registry, "d").unwrap().rights,
        Rights::within(name("other"), Role::Operator)
    );
    registry.delete_project(&name("other"), None).unwrap();
    other();
    assert_eq!(bearer(&registry, "d"), None);
    assert_eq!(registry.user("eve").unwrap().object.rights, Rights::default());
}

#[test]
fn tokens_of_a_version_without_users_are_still_good() {
    let (registry, _folder) = registry();
    let record = json!({
        "id": "01890000-0000-7000-8000-000000000000", "name": "ci", "role": "viewer",
        "created": "2026-01-01T00:00:00Z", "expires": null, "digest": "d",
    });
    let txn = store::Txn::new().put("/tokens/ci", record.to_string());
    registry.store().commit(&txn).unwrap();
    registry.found(NOW).unwrap();
    assert_eq!(bearer(&registry, "d").unwrap().who, "token:ci");
    assert_eq!(registry.tokens(None).unwrap().0.len(), 1);
    registry.delete_token(&name("ci")).unwrap();
    registry.found(NOW).unwrap();
    assert_eq!(bearer(&registry, "d"), None);
}
