//! Templates: names over immutable versions, with what they were published from.

use crate::desk::Desk;
use domain::{ContentId, TemplateId, TenantId};
use store::{NewTemplateVersion, StoreError, TemplateContent, Tenant};

fn content(tenant: TenantId, text: &str) -> TemplateContent {
    TemplateContent { id: ContentId::of(tenant, &[text.as_bytes()]), body: text.as_bytes().to_vec() }
}

fn version(tenant: TenantId, text: &str) -> NewTemplateVersion {
    NewTemplateVersion {
        content: Some(content(tenant, text)),
        translations: vec![
            ("de".to_owned(), content(tenant, &format!("{text} de"))),
            ("pt-BR".to_owned(), content(tenant, &format!("{text} pt"))),
        ],
        source: format!("source of {text}").into_bytes(),
        report: b"{}".to_vec(),
        rules: None,
    }
}

struct Shelf {
    desk: Desk,
    tenant: TenantId,
    now: chrono::DateTime<chrono::Utc>,
}

impl Shelf {
    async fn new() -> Self {
        let desk = Desk::new().await;
        let now = desk.store.now().await.unwrap();
        let tenant = desk.tenant;
        Self { desk, tenant, now }
    }

    async fn template(&self, name: &str) -> TemplateId {
        let id = TemplateId::new(self.now);
        self.desk.store.create_template(self.tenant, id, name, self.now).await.unwrap();
        id
    }

    async fn publish(&self, id: TemplateId, new: &NewTemplateVersion) -> Option<u32> {
        self.desk.store.publish_template(self.tenant, id, new, self.now).await.unwrap()
    }
}

#[tokio::test]
async fn a_version_is_published_once_and_never_changes() {
    let shelf = Shelf::new().await;
    let store = &shelf.desk.store;
    let id = shelf.template("welcome").await;
    let first = version(shelf.tenant, "one");
    assert_eq!(shelf.publish(id, &first).await, Some(1));
    assert_eq!(shelf.publish(id, &first).await, Some(1), "the same again is no new version");
    let commented = NewTemplateVersion { source: b"another source".to_vec(), ..first.clone() };
    assert_eq!(shelf.publish(id, &commented).await, Some(2), "what people read is part of a version");
    let ruled = NewTemplateVersion { rules: Some(b"[]".to_vec()), ..commented.clone() };
    assert_eq!(shelf.publish(id, &ruled).await, Some(3));
    let mut translated = ruled.clone();
    translated.translations.pop();
    assert_eq!(shelf.publish(id, &translated).await, Some(4));
    let partial = NewTemplateVersion { content: None, translations: Vec::new(), ..ruled.clone() };
    assert_eq!(shelf.publish(id, &partial).await, Some(5));
    assert_eq!(shelf.publish(id, &partial).await, Some(5));
    let pinned = NewTemplateVersion { report: b"{\"pins\":{}}".to_vec(), ..partial };
    assert_eq!(shelf.publish(id, &pinned).await, Some(6), "what a piece takes in is part of it");

    let seen = store.template_version(shelf.tenant, id, 1).await.unwrap().unwrap();
    assert_eq!((seen.version, seen.content, seen.rules), (1, first.content.map(|one| one.id), None));
    let translations: Vec<_> = first.translations.iter().map(|(language, one)| (language.clone(), one.id)).collect();
    assert_eq!(seen.translations, translations);
    let body = store.content(translations[0].1).await.unwrap().unwrap().body;
    assert_eq!(body, b"one de");
    let newest = store.template_version(shelf.tenant, id, 0).await.unwrap().unwrap();
    assert_eq!((newest.version, newest.content), (6, None));
    let asked = [("welcome", 1), ("welcome", 0), ("absent", 0), ("welcome", 9)];
    let asked = asked.map(|(name, version)| (name.to_owned(), version));
    let mut sources = store.template_sources(shelf.tenant, &asked).await.unwrap();
    sources.sort_by_key(|one| one.version);
    let told: Vec<_> = sources.iter().map(|one| (one.asked, one.version, one.latest, one.source.as_slice())).collect();
    assert_eq!(told, [(1, 1, 6, &b"source of one"[..]), (0, 6, 6, b"another source")]);
    let versions = store.template_versions(shelf.tenant, id, 3).await.unwrap();
    let told: Vec<_> = versions.iter().map(|one| (one.version, one.is_partial, one.languages.len())).collect();
    assert_eq!(told, [(6, true, 0), (5, true, 0), (4, false, 1)]);
}

#[tokio::test]
async fn templates_are_listed_page_by_page_and_no_tenant_sees_anothers() {
    let shelf = Shelf::new().await;
    let store = &shelf.desk.store;
    for name in ["b", "a", "d", "c"] {
        shelf.template(name).await;
    }
    let id = shelf.template("e").await;
    shelf.publish(id, &version(shelf.tenant, "x")).await;
    let names = async |after: Option<&str>, limit| {
        let page = store.templates(shelf.tenant, after, limit).await.unwrap();
        page.into_iter().map(|one| (one.name, one.latest)).collect::<Vec<_>>()
    };
    let page =
        |names: &[(&str, u32)]| names.iter().map(|(name, latest)| ((*name).to_owned(), *latest)).collect::<Vec<_>>();
    assert_eq!(names(None, 2).await, page(&[("a", 0), ("b", 0)]));
    assert_eq!(names(Some("b"), 9).await, page(&[("c", 0), ("d", 0), ("e", 1)]));
    assert_eq!(names(Some("e"), 9).await, []);

    let stranger = TenantId::new(shelf.now);
    let other = Tenant { id: stranger, name: "stranger".to_owned(), created_at: shelf.now };
    store.create_tenant(&other).await.unwrap();
    assert_eq!(store.templates(stranger, None, 9).await.unwrap(), []);
    assert_eq!(store.template(stranger, id).await.unwrap(), None);
    assert_eq!(store.template_version(stranger, id, 1).await.unwrap(), None);
    assert_eq!(store.template_versions(stranger, id, 9).await.unwrap(), []);
    assert_eq!(store.template_sources(stranger, &[("e".to_owned(), 1)]).await.unwrap(), []);
    let published = store.publish_template(stranger, id, &version(stranger, "y"), shelf.now).await.unwrap();
    assert_eq!(published, None);
    let taken = store.create_template(shelf.tenant, TemplateId::new(shelf.now), "a", shelf.now).await;
    assert!(matches!(taken, Err(StoreError::Exists { .. })));
}

#[tokio::test]
async fn what_was_compiled_stands_in_for_a_source_that_was_never_kept() {
    let shelf = Shelf::new().await;
    let id = shelf.template("old").await;
    shelf.publish(id, &version(shelf.tenant, r#"{"subject":"S"}"#)).await;
    let forget = "update mailfleet.template_versions set source = null, report = null";
    sqlx::query(forget).execute(&shelf.desk.pool().await).await.unwrap();
    let found = shelf.desk.store.template_sources(shelf.tenant, &[("old".to_owned(), 0)]).await.unwrap();
    assert_eq!((found[0].source.as_slice(), &found[0].report), (&br#"{"parts":{"subject":"S"}}"#[..], &None));
    assert_eq!(shelf.publish(id, &version(shelf.tenant, r#"{"subject":"S"}"#)).await, Some(2));
}
