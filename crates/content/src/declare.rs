//! Declared variables: what a template's author says a recipient has to give, and whether one does.

use crate::{Finding, Limits};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// Longest path of a declared variable, in octets.
const MAX_PATH: usize = 200;
/// Deepest path: `a.b[].c` has four steps.
const MAX_STEPS: usize = 16;
/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 500;

/// What a variable holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariableKind {
    /// Anything, `null` as well.
    #[default]
    Any,
    /// A text.
    String,
    /// A number.
    Number,
    /// A number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list.
    List,
    /// An object.
    Object,
}

impl VariableKind {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "a number without a fraction",
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

impl fmt::Display for VariableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::String => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::List => "list",
            Self::Object => "object",
        })
    }
}

/// A variable as its author declares it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// Its path: `name`, `user.name`, `items[].price`.
    pub name: String,
    /// What it holds.
    #[serde(default)]
    pub kind: VariableKind,
    /// Whether it may be left out though it has no default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Its value for a recipient that leaves it out. Only a whole variable has one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A default of `null` is one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What a recipient's variables have to be: kept beside a published version, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Declared(Shape);

/// What one value has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    #[serde(default, rename = "k")]
    kind: VariableKind,
    /// Whether it must be there.
    #[serde(default, rename = "r", skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    /// By name, in order.
    #[serde(default, rename = "f", skip_serializing_if = "Vec::is_empty")]
    fields: Vec<(String, Shape)>,
    #[serde(default, rename = "i", skip_serializing_if = "Option::is_none")]
    items: Option<Box<Shape>>,
}

/// A value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Where: `user.name`, `items[3].price`.
    pub path: String,
    /// What it has to be.
    pub wanted: VariableKind,
    /// Whether it is missing, and not of another kind.
    pub missing: bool,
}

impl Misfit {
    /// The problem and the fix.
    pub fn description(&self) -> String {
        format!("{}; give {}", self.problem(), self.wanted.words())
    }

    pub(crate) fn problem(&self) -> String {
        if self.missing {
            "is missing".to_owned()
        } else {
            format!("is not {}, as the template declares it", self.wanted.words())
        }
    }
}

impl Declared {
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.0.fields.is_empty()
    }

    /// Whether a variable that a template names, such as `user.name`, is declared or may lie in one that is.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let mut shape = &self.0;
        for step in name.split('.') {
            if shape.fields.is_empty() {
                return true;
            }
            match shape.field(step) {
                Ok(index) => shape = &shape.fields[index].1,
                Err(_) => return false,
            }
        }
        true
    }

    /// The names of the whole variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.fields.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a default fits its variable.
    pub(crate) fn check_default(&self, name: &str, value: &Value) -> Result<(), Misfit> {
        let mut alone = Self::default();
        alone.0.kind = VariableKind::Object;
        alone.0.fields.extend(self.0.field(name).ok().map(|index| self.0.fields[index].clone()));
        alone.check(&serde_json::json!({ name: value }).to_string())
    }

    /// Looks through a JSON object of variables once, without making a tree of it. Text that is no JSON object is
    /// nothing to this: who takes variables in has looked at that.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn check(&self, json: &str) -> Result<(), Misfit> {
        let mut path = Vec::new();
        let mut found = None;
        let mut reader = serde_json::Deserializer::from_str(if json.is_empty() { "{}" } else { json });
        let _ = Look { shape: &self.0, path: &mut path, found: &mut found }.deserialize(&mut reader);
        found.map_or(Ok(()), Err)
    }
}

/// Makes the shape of these declarations, in whose order later ones of the same path are ignored: what includes
/// comes before what is included. `field` names a declaration in findings.
pub(crate) fn declared<'a>(
    declarations: impl Iterator<Item = (String, &'a Declaration)>,
    has_default: impl Fn(&str) -> bool,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Declared {
    let mut root = Shape { kind: VariableKind::Object, ..Shape::default() };
    let mut seen = BTreeSet::new();
    for (field, declaration) in declarations {
        if !seen.insert(declaration.name.as_str()) {
            if field.starts_with("variables[") {
                findings.push(Finding::new(format!("{field}.name"), "is declared twice", "declare it once"));
            }
            continue;
        }
        if seen.len() > limits.max_variables {
            let fix = format!("declare at most {}, those of included templates as well", limits.max_variables);
            findings.push(Finding::new("variables", "are too many", fix));
            break;
        }
        if declaration.description.chars().count() > MAX_DESCRIPTION {
            let fix = format!("keep it within {MAX_DESCRIPTION} characters");
            findings.push(Finding::new(format!("{field}.description"), "is too long", fix));
        }
        let Some(steps) = steps(&declaration.name) else {
            let fix = "write it as name, user.name or items[].price, of letters, digits and underscores";
            findings.push(Finding::new(format!("{field}.name"), "is not the path of a variable", fix));
            continue;
        };
        let nested = steps.len() > 1;
        if nested && declaration.default.is_some() {
            let problem = "has a default, which only a whole variable can have";
            let fix = format!("declare {} and give it the default", steps[0]);
            findings.push(Finding::new(format!("{field}.default_json"), problem, fix));
        }
        let has_default = declaration.default.is_some() || (!nested && has_default(&declaration.name));
        let required = !declaration.optional && !has_default;
        if let Err(kind) = root.place(&steps, declaration.kind, required) {
            let problem = format!("lies within a variable that is declared as {}", kind.words());
            findings.push(Finding::new(format!("{field}.name"), problem, "declare that one as an object or a list"));
        }
    }
    root.require(&has_default);
    Declared(root)
}

/// `items[].price` as `items`, `[]`, `price`.
fn steps(path: &str) -> Option<Vec<&str>> {
    if path.is_empty() || path.len() > MAX_PATH {
        return None;
    }
    let mut steps = Vec::new();
    for part in path.split('.') {
        let name = part.trim_end_matches("[]");
        let starts = name.as_bytes().first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_');
        if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        steps.push(name);
        steps.extend(std::iter::repeat_n("[]", (part.len() - name.len()) / 2));
    }
    (steps.len() <= MAX_STEPS).then_some(steps)
}

impl Shape {
    /// Where a field is, or would be.
    fn field(&self, name: &str) -> Result<usize, usize> {
        self.fields.binary_search_by(|(known, _)| known.as_str().cmp(name))
    }

    /// Puts a declaration into its place; fails with the kind of what it cannot lie in.
    fn place(&mut self, steps: &[&str], kind: VariableKind, required: bool) -> Result<(), VariableKind> {
        let Some((step, rest)) = steps.split_first() else {
            // An object or list that was made for what lies in it stays one.
            let made = !self.fields.is_empty() || self.items.is_some();
            if made && kind != self.kind && kind != VariableKind::Any {
                return Err(kind);
            }
            if !made {
                self.kind = kind;
            }
            self.required |= required;
            return Ok(());
        };
        let holder = if *step == "[]" { VariableKind::List } else { VariableKind::Object };
        let fresh = self.kind == VariableKind::Any && self.fields.is_empty() && self.items.is_none();
        if !fresh && self.kind != holder {
            return Err(self.kind);
        }
        self.kind = holder;
        let next = match *step {
            "[]" => &mut **self.items.get_or_insert_default(),
            name => {
                let index = self.field(name).unwrap_or_else(|index| {
                    self.fields.insert(index, (name.to_owned(), Self::default()));
                    index
                });
                &mut self.fields[index].1
            }
        };
        next.place(rest, kind, required)
    }

    /// A whole variable without a default is required when something within it is.
    fn require(&mut self, has_default: &impl Fn(&str) -> bool) {
        for (name, shape) in &mut self.fields {
            if shape.needs_fields() && !has_default(name) {
                shape.required = true;
            }
        }
    }

    fn needs_fields(&mut self) -> bool {
        let mut needed = false;
        for (_, shape) in &mut self.fields {
            shape.required |= shape.needs_fields();
            needed |= shape.required;
        }
        if let Some(items) = &mut self.items {
            // An empty list lacks nothing.
            let _ = items.needs_fields();
        }
        needed
    }
}

/// Where a value lies, built only as deep as the shape goes.
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// Visits a value that has to be of a shape; stops at the first that is not.
struct Look<'a, 'b> {
    shape: &'a Shape,
    path: &'b mut Vec<Step<'a>>,
    found: &'b mut Option<Misfit>,
}

impl<'a> Look<'a, '_> {
    fn is<E: Error>(self, fits: bool) -> Result<(), E> {
        if fits || self.shape.kind == VariableKind::Any { Ok(()) } else { Err(self.misfit(None)) }
    }

    fn misfit<E: Error>(self, missing: Option<(&'a str, &'a Shape)>) -> E {
        let mut path = String::new();
        let field = missing.map(|(name, _)| Step::Field(name));
        for step in self.path.iter().chain(&field) {
            match step {
                Step::Item(index) => path.push_str(&format!("[{index}]")),
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => path.push_str(&format!(".{name}")),
            }
        }
        let wanted = missing.map_or(self.shape.kind, |(_, shape)| shape.kind);
        *self.found = Some(Misfit { path, wanted, missing: missing.is_some() });
        E::custom("does not fit")
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.is(false)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        let fits = self.shape.kind == VariableKind::Boolean;
        self.is(fits)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        let fits = matches!(self.shape.kind, VariableKind::Number | VariableKind::Integer);
        self.is(fits)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        let fits = matches!(self.shape.kind, VariableKind::Number | VariableKind::Integer);
        self.is(fits)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        let kind = self.shape.kind;
        let fits = kind == VariableKind::Number || (kind == VariableKind::Integer && number.fract() == 0.0);
        self.is(fits)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        let fits = self.shape.kind == VariableKind::String;
        self.is(fits)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !matches!(self.shape.kind, VariableKind::List | VariableKind::Any) {
            return Err(self.misfit(None));
        }
        let Some(items) = &self.shape.items else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        for index in 0.. {
            self.path.push(Step::Item(index));
            let look = Look { shape: items, path: &mut *self.path, found: &mut *self.found };
            let more = list.next_element_seed(look)?;
            self.path.pop();
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if !matches!(self.shape.kind, VariableKind::Object | VariableKind::Any) {
            return Err(self.misfit(None));
        }
        let fields = &self.shape.fields;
        let mut seen = vec![false; fields.len()];
        while let Some(known) = entries.next_key_seed(Key(self.shape))? {
            match known {
                None => drop(entries.next_value::<IgnoredAny>()?),
                Some((index, name, shape)) => {
                    seen[index] = true;
                    self.path.push(Step::Field(name));
                    entries.next_value_seed(Look { shape, path: &mut *self.path, found: &mut *self.found })?;
                    self.path.pop();
                }
            }
        }
        let mut absent = fields.iter().zip(&seen).filter(|((_, shape), seen)| shape.required && !**seen);
        match absent.next() {
            Some(((name, shape), _)) => Err(self.misfit(Some((name.as_str(), shape)))),
            None => Ok(()),
        }
    }
}

/// Reads a key as the field that it names.
struct Key<'a>(&'a Shape);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<(usize, &'a str, &'a Shape)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<(usize, &'a str, &'a Shape)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(key).ok().map(|index| {
            let (name, shape) = &self.0.fields[index];
            (index, name.as_str(), shape)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(list: &[(&str, VariableKind, bool)]) -> Declared {
        let list: Vec<Declaration> = list
            .iter()
            .map(|(name, kind, optional)| Declaration {
                name: (*name).to_owned(),
                kind: *kind,
                optional: *optional,
                ..Declaration::default()
            })
            .collect();
        let mut findings = Vec::new();
        let made =
            declared(list.iter().map(|one| (one.name.clone(), one)), |_| false, &Limits::default(), &mut findings);
        assert_eq!(findings, []);
        made
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_path() {
        use VariableKind::*;
        let declared = declare(&[
            ("name", String, false),
            ("age", Integer, true),
            ("user.vip", Boolean, true),
            ("items[].price", Number, false),
            ("extra", Any, true),
        ]);
        let stored: Declared = serde_json::from_str(&serde_json::to_string(&declared).unwrap()).unwrap();
        assert_eq!(stored, declared);
        for good in [
            r#"{"name":"A"}"#,
            r#"{"name":"","age":3,"user":{},"items":[],"other":[1,{"x":null}]}"#,
            r#"{"age":-1.0,"items":[{"price":1},{"price":1.5,"x":1}],"name":"\u0041","extra":null,"user":{"vip":true}}"#,
        ] {
            assert_eq!(declared.check(good), Ok(()), "{good}");
        }
        for (bad, path, wanted, missing) in [
            ("", "name", String, true),
            (r#"{"name":1}"#, "name", String, false),
            (r#"{"name":null}"#, "name", String, false),
            (r#"{"name":"","age":1.5}"#, "age", Integer, false),
            (r#"{"name":"","age":"3"}"#, "age", Integer, false),
            (r#"{"name":"","user":{"vip":1}}"#, "user.vip", Boolean, false),
            (r#"{"name":"","user":[]}"#, "user", Object, false),
            (r#"{"name":"","items":{}}"#, "items", List, false),
            (r#"{"name":"","items":[{"price":1},{}]}"#, "items[1].price", Number, true),
            (r#"{"name":"","items":[{"price":"1"}]}"#, "items[0].price", Number, false),
        ] {
            assert_eq!(declared.check(bad), Err(Misfit { path: path.to_owned(), wanted, missing }), "{bad}");
        }
    }

    #[test]
    fn an_object_is_required_when_something_in_it_is() {
        let declared = declare(&[("user.address.city", VariableKind::String, false)]);
        assert_eq!(declared.check("{}").unwrap_err().path, "user");
        assert_eq!(declared.check(r#"{"user":{}}"#).unwrap_err().path, "user.address");
        assert!(
            declared.covers("user.address.city.length") && declared.covers("user") && !declared.covers("user.name")
        );
    }

    #[test]
    fn declarations_that_contradict_each_other_are_found() {
        let list = [("a", VariableKind::String), ("a.b", VariableKind::String), ("1x", VariableKind::Any)];
        let list = list.map(|(name, kind)| Declaration { name: name.to_owned(), kind, ..Declaration::default() });
        let mut findings = Vec::new();
        let fields = ["variables[0]", "variables[1]", "variables[2]"].map(str::to_owned);
        declared(fields.into_iter().zip(&list), |_| false, &Limits::default(), &mut findings);
        let fields: Vec<_> = findings.iter().map(|finding| finding.field.as_str()).collect();
        assert_eq!(fields, ["variables[1].name", "variables[2].name"]);
    }
}
