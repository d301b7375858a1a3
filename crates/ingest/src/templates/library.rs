//! The versions that a template takes in, loaded level by level before it is compiled.

use crate::Fault;
use content::{Ingredient, Library, Limits, Reference, Report, VersionSource};
use domain::TenantId;
use std::collections::BTreeSet;
use store::{Store, TemplateVersionSource};

/// Versions fetched at a time.
const PIECE: usize = 8;
/// Most octets of sources that one template may take in.
const MAX_LOADED: usize = 32 * 1024 * 1024;

/// A stored version, read.
pub struct Stored {
    /// What it was published from.
    pub source: VersionSource,
    /// What is told of it.
    pub report: Report,
}

/// Reads a stored version.
///
/// # Errors
/// When it is not what this program writes.
pub fn read(row: &TemplateVersionSource) -> Result<Stored, Fault> {
    let internal = |error: serde_json::Error| Fault::Internal(Box::new(error));
    let source = serde_json::from_slice(&row.source).map_err(internal)?;
    let report = row.report.as_deref().map(serde_json::from_slice).transpose().map_err(internal)?;
    Ok(Stored { source, report: report.unwrap_or_default() })
}

/// Loads all that `source` may take in. What is not there is left out, and told when it is put in place; so is what
/// lies deeper, or is more, than is taken.
///
/// # Errors
/// When the database does not answer.
pub async fn load(
    store: &Store,
    tenant: TenantId,
    of: Option<&str>,
    source: &VersionSource,
    limits: &Limits,
) -> Result<Library, Fault> {
    let mut library = Library { of: of.map(str::to_owned), ..Library::default() };
    let mut wanted: BTreeSet<Reference> = source.references();
    let mut room = MAX_LOADED;
    for level in 0..=limits.max_include_depth {
        let known = |one: &Reference| {
            one.version.is_some_and(|version| library.versions.contains_key(&(one.name.clone(), version)))
        };
        let asked: Vec<(String, u32)> =
            wanted.iter().filter(|one| !known(one)).map(|one| (one.name.clone(), one.version.unwrap_or(0))).collect();
        if asked.is_empty() {
            break;
        }
        wanted.clear();
        for row in fetch(store, tenant, &asked, &mut room).await? {
            let Stored { source, report } = read(&row)?;
            if level == 0 {
                let version = (row.asked > 0).then_some(row.asked);
                library.pins.insert(Reference { name: row.name.clone(), version }.to_string(), row.version);
            }
            // Below the first level every reference has been settled by the version that makes it.
            wanted.extend(source.references().into_iter().filter_map(|one| {
                let version = one.version.or_else(|| report.pins.get(&one.to_string()).copied())?;
                Some(Reference { version: Some(version), ..one })
            }));
            let ingredient = Ingredient { latest: row.latest, source, pins: report.pins };
            library.versions.insert((row.name, row.version), ingredient);
        }
    }
    Ok(library)
}

async fn fetch(
    store: &Store,
    tenant: TenantId,
    asked: &[(String, u32)],
    room: &mut usize,
) -> Result<Vec<TemplateVersionSource>, Fault> {
    let mut rows = Vec::new();
    for piece in asked.chunks(PIECE) {
        for row in store.template_sources(tenant, piece).await? {
            *room = room.checked_sub(row.source.len()).ok_or_else(|| {
                let text = format!("takes in templates of over {} MB; take in fewer or smaller ones", MAX_LOADED >> 20);
                Fault::field("template", text)
            })?;
            rows.push(row);
        }
    }
    Ok(rows)
}
