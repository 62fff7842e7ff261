//! Restarts, limits and damage of the catalog, on real files.

use super::schema::SCHEMA_VERSION;
use super::*;

fn entry(name: &str) -> CatalogEntry {
    CatalogEntry {
        id: 0,
        name: name.into(),
        team: "t".into(),
        client_api: "keyvalue".into(),
        durability: "best-effort".into(),
        backend: "memory".into(),
        store: StoreRef {
            name: "embedded".into(),
            kind: "sqlite".into(),
        },
        create_time_ns: 1_700_000_000_000_000_001,
        yaml: format!("namespace: {name}\nclient_api: keyvalue\n"),
        state: NamespaceState::Provisioning,
        version: 1,
        pending: None,
    }
}

/// Adds one namespace.
fn add(catalog: &mut Catalog, name: &str) -> u32 {
    match catalog.create(&[entry(name)], 1_000).unwrap() {
        Insert::Done(ids) => ids[0],
        Insert::Taken(taken) => panic!("{taken:?}"),
    }
}

fn state(catalog: &Catalog, name: &str) -> Option<NamespaceState> {
    catalog.entry(name).unwrap().map(|entry| entry.state)
}

#[test]
fn every_state_survives_a_restart_and_no_id_is_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let reopen = |catalog: Catalog| {
        drop(catalog);
        Catalog::open(dir.path()).unwrap()
    };
    let mut catalog = Catalog::open(dir.path()).unwrap();
    let (a, b) = (add(&mut catalog, "a"), add(&mut catalog, "b"));
    assert_eq!((a, b), (1, 2));
    catalog = reopen(catalog);
    assert_eq!(state(&catalog, "a"), Some(NamespaceState::Provisioning));
    catalog.activate(&[a, b]).unwrap();
    catalog.begin_delete(&[b]).unwrap();
    catalog = reopen(catalog);
    assert_eq!(state(&catalog, "a"), Some(NamespaceState::Active));
    assert_eq!(state(&catalog, "b"), Some(NamespaceState::Deleting));
    // What is late changes nothing.
    catalog.activate(&[b]).unwrap();
    catalog.remove(&[a]).unwrap();
    assert_eq!(state(&catalog, "a"), Some(NamespaceState::Active));
    assert_eq!(state(&catalog, "b"), Some(NamespaceState::Deleting));
    catalog.remove(&[b]).unwrap();
    catalog = reopen(catalog);
    assert_eq!(state(&catalog, "b"), None);
    assert_eq!(add(&mut catalog, "b"), 3);
    assert_eq!(catalog.entry("b").unwrap().unwrap().config().unwrap().name, "b");
}

#[test]
fn an_update_is_the_old_file_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(dir.path()).unwrap();
    let id = add(&mut catalog, "a");
    catalog.activate(&[id]).unwrap();
    let old = catalog.entry("a").unwrap().unwrap();
    let new = "namespace: a\nteam: other\nclient_api: keyvalue\n";
    assert!(catalog.begin_update(id, 1, new).unwrap());
    drop(catalog);
    let mut catalog = Catalog::open(dir.path()).unwrap();
    let found = catalog.entry("a").unwrap().unwrap();
    assert_eq!((&found.yaml, found.version), (&old.yaml, 1));
    assert_eq!(found.state, NamespaceState::Updating);
    catalog.undo_update(id).unwrap();
    assert_eq!(catalog.entry("a").unwrap(), Some(old));

    assert!(catalog.begin_update(id, 1, new).unwrap());
    let updated = catalog.entry("a").unwrap().unwrap().updated();
    catalog.finish_update(&updated).unwrap();
    let found = catalog.entry("a").unwrap().unwrap();
    assert_eq!((&*found.yaml, &*found.team, found.version), (new, "other", 2));
    assert_eq!((found.state, found.pending), (NamespaceState::Active, None));
}

#[test]
fn a_batch_is_all_or_nothing_and_the_count_is_limited() {
    let mut catalog = Catalog::in_memory().unwrap();
    add(&mut catalog, "b");
    let batch = [entry("a"), entry("b"), entry("c")];
    let taken = catalog.create(&batch, 1_000).unwrap();
    assert_eq!(taken, Insert::Taken(vec![(1, NamespaceState::Provisioning)]));
    assert_eq!(catalog.entries().unwrap().len(), 1, "nothing was done");
    let batch = [entry("a"), entry("c")];
    assert!(matches!(
        catalog.create(&batch, 2),
        Err(CatalogError::Full { limit: 2, asked: 2 })
    ));
    assert_eq!(
        catalog.create(&batch, 3).unwrap(),
        Insert::Done(vec![2, 3]),
        "a refusal uses no id up"
    );
    // A taken name is reported before the limit.
    assert!(matches!(catalog.create(&batch, 3), Ok(Insert::Taken(taken)) if taken.len() == 2));
}

/// The tables and rows of the release before: two namespaces, and one of the same name as the first
/// whose data was still to be removed.
const OF_SCHEMA_1: &str = "
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, team TEXT NOT NULL, client_api TEXT NOT NULL,
    durability TEXT NOT NULL, backend TEXT NOT NULL, create_time_ns INTEGER NOT NULL, yaml TEXT NOT NULL
) STRICT;
CREATE TABLE dropped (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
INSERT INTO namespaces VALUES (2, 'b', 't', 'keyvalue', 'strong', 'SQLite', 7, 'namespace: b');
INSERT INTO namespaces VALUES (3, 'a', '', 'keyvalue', 'eventual', 'SQLite', 8, 'namespace: a');
INSERT INTO dropped VALUES (1, 'a');
PRAGMA application_id = 1349677933; PRAGMA user_version = 1;
";

#[test]
fn a_catalog_of_the_release_before_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join(FILE_NAME))
        .unwrap()
        .execute_batch(OF_SCHEMA_1)
        .unwrap();
    for _ in 0..2 {
        let catalog = Catalog::open(dir.path()).unwrap();
        let entries = catalog.entries().unwrap();
        let all: Vec<_> = entries
            .iter()
            .map(|entry| (entry.id, &*entry.name, entry.state, entry.version))
            .collect();
        assert_eq!(
            all,
            [
                (1, "#1", NamespaceState::Deleting, 1),
                (3, "a", NamespaceState::Active, 1),
                (2, "b", NamespaceState::Active, 1)
            ]
        );
        assert_eq!(entries[2].yaml, "namespace: b");
    }
    let mut catalog = Catalog::open(dir.path()).unwrap();
    catalog.remove(&[1]).unwrap();
    assert_eq!(add(&mut catalog, "c"), 4);
}

#[test]
fn pages_follow_the_names() {
    let mut catalog = Catalog::in_memory().unwrap();
    for name in ["d", "a", "c", "b"] {
        add(&mut catalog, name);
    }
    let names = |page: Vec<CatalogEntry>| page.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(catalog.page("", 2).unwrap()), ["a", "b"]);
    assert_eq!(names(catalog.page("b", 2).unwrap()), ["c", "d"]);
    assert_eq!(names(catalog.page("d", 2).unwrap()), [] as [&str; 0]);
}

#[test]
fn a_second_process_is_told_that_the_file_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = Catalog::open(dir.path()).unwrap();
    let error = Catalog::open(dir.path()).unwrap_err();
    assert!(matches!(error, CatalogError::Busy { .. }), "{error}");
    drop(first);
    Catalog::open(dir.path()).unwrap();
}

#[test]
fn bad_files_and_directories_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let error = Catalog::open(&dir.path().join("file")).unwrap_err();
    assert!(
        error.to_string().contains("choose another with --data-dir"),
        "{error}"
    );

    let path = dir.path().join(FILE_NAME);
    std::fs::write(
        &path,
        b"this is not a database, but a text that is long enough to be read as a header of one........",
    )
    .unwrap();
    assert!(matches!(
        Catalog::open(dir.path()),
        Err(CatalogError::Corrupt { .. })
    ));

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE other (a)")
        .unwrap();
    let error = Catalog::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");

    std::fs::remove_file(&path).unwrap();
    drop(Catalog::open(dir.path()).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let error = Catalog::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("use a newer prism"), "{error}");
}

#[test]
fn a_damaged_page_is_found_when_the_file_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(dir.path()).unwrap();
    for index in 0..200 {
        add(&mut catalog, &format!("namespace-{index}"));
    }
    drop(catalog);
    let path = dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(2) {
        page[..64].fill(0xA5);
    }
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(
        Catalog::open(dir.path()),
        Err(CatalogError::Corrupt { .. })
    ));
}
