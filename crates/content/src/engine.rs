//! MiniJinja, fenced in: strict about what is undefined, fuelled, without anything that reaches outside.

use crate::vet::vet;
use crate::{Finding, Limits, RenderError};
use minijinja::value::{Object, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The name of the one part that is escaped.
pub(crate) const HTML: &str = "html";

/// Values by name.
pub(crate) type Values = HashMap<String, Value>;

/// The variable that stands for the address at which the recipient unsubscribes. A recipient's own of this name wins,
/// a template's default does not.
pub const UNSUBSCRIBE_URL: &str = "unsubscribe_url";

/// What a template can name: the recipient's variables, what every mail has, then the template's defaults.
#[derive(Debug)]
struct Scope {
    variables: Arc<Values>,
    unsubscribe: Option<Value>,
    defaults: Arc<Values>,
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        let own = self.unsubscribe.as_ref().filter(|_| key == UNSUBSCRIBE_URL);
        self.variables.get(key).or(own).or_else(|| self.defaults.get(key)).cloned()
    }
}

/// What templates see of one mail.
pub(crate) fn scope(variables: &Arc<Values>, unsubscribe: Option<Value>, defaults: &Arc<Values>) -> Value {
    Value::from_object(Scope { variables: variables.clone(), unsubscribe, defaults: defaults.clone() })
}

/// Parses a recipient's variables.
pub(crate) fn variables(json: &str, limits: &Limits) -> Result<Arc<Values>, RenderError> {
    if json.len() > limits.max_variables_bytes {
        return Err(RenderError::Limit { part: "variables".to_owned(), limit: "octets" });
    }
    if json.is_empty() {
        return Ok(Arc::default());
    }
    // The parser's own words repeat what it read: only where it stopped is told.
    serde_json::from_str(json)
        .map(Arc::new)
        .map_err(|error| RenderError::Variables(format!("are not a JSON object, see column {}", error.column())))
}

/// One text of a content: a template, or a constant when it has no tags.
pub(crate) enum Part {
    Constant(String),
    Template(String),
}

/// Whether a text has anything to render.
pub(crate) fn has_tags(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#'))
}

/// The parsed templates of one content.
pub(crate) struct Engine {
    env: Environment<'static>,
    /// The same with positions of undefined values kept, which costs and is wanted after a failure only.
    telling: OnceLock<Environment<'static>>,
    max_part_bytes: usize,
}

impl Engine {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { env: environment(limits), telling: OnceLock::new(), max_part_bytes: limits.max_part_bytes }
    }

    /// Adds a part under a name that errors will call it by.
    pub(crate) fn add(&mut self, name: &str, source: &str, limits: &Limits) -> Result<Part, Finding> {
        if source.len() > limits.max_source_bytes {
            let fix = format!("keep it within {} octets", limits.max_source_bytes);
            return Err(Finding::new(name, "is too large", fix));
        }
        if !has_tags(source) {
            return Ok(Part::Constant(source.to_owned()));
        }
        self.env
            .add_template_owned(name.to_owned(), source.to_owned())
            .map_err(|error| syntax_finding(name, &error))?;
        vet(name, source)?;
        Ok(Part::Template(name.to_owned()))
    }

    /// Renders a part.
    pub(crate) fn render<'a>(&self, part: &'a Part, scope: &Value) -> Result<Cow<'a, str>, RenderError> {
        let name = match part {
            Part::Constant(text) => return Ok(Cow::Borrowed(text)),
            Part::Template(name) => name,
        };
        let text = self
            .env
            .get_template(name)
            .and_then(|template| template.render(scope))
            .map_err(|error| self.explain(name, scope, &error))?;
        if text.len() > self.max_part_bytes {
            return Err(RenderError::Limit { part: name.clone(), limit: "octets" });
        }
        Ok(Cow::Owned(text))
    }

    /// The names that a part takes from its variables: `user.name` where it names an attribute.
    pub(crate) fn variables(&self, name: &str) -> Vec<String> {
        let Ok(template) = self.env.get_template(name) else { return Vec::new() };
        let is_global = |variable: &String| self.env.globals().any(|(global, _)| global == variable);
        template.undeclared_variables(true).into_iter().filter(|variable| !is_global(variable)).collect()
    }

    fn explain(&self, part: &str, scope: &Value, error: &Error) -> RenderError {
        let part_name = part.to_owned();
        match error.kind() {
            ErrorKind::OutOfFuel => RenderError::Limit { part: part_name, limit: "fuel" },
            ErrorKind::UndefinedError => {
                let telling = self.telling.get_or_init(|| {
                    let mut env = self.env.clone();
                    env.set_debug(true);
                    env
                });
                let told = telling.get_template(part).and_then(|template| template.render(scope)).err();
                let name = told.as_ref().and_then(|error| undefined_name(error.detail()?));
                let name = name.unwrap_or_else(|| self.absent(part, scope));
                RenderError::MissingVariable { name, part: part_name, line: error.line() }
            }
            ErrorKind::InvalidOperation if error.detail().is_some_and(|text| text.contains("recursion limit")) => {
                RenderError::Limit { part: part_name, limit: "recursion" }
            }
            kind => RenderError::Template {
                part: part_name,
                line: error.line(),
                problem: error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
            },
        }
    }

    /// The first name of a part that is not there at all.
    fn absent(&self, part: &str, scope: &Value) -> String {
        let mut names = self.variables(part);
        names.sort();
        let missing = |name: &String| {
            let root = name.split('.').next().unwrap_or(name);
            scope.get_attr(root).map_or(true, |value| value.is_undefined())
        };
        names.into_iter().find(missing).unwrap_or_else(|| "of this part".to_owned())
    }
}

/// Takes `user.name` out of ``... `user.name` is undefined ...``.
fn undefined_name(detail: &str) -> Option<String> {
    let head = &detail[..detail.rfind("` is undefined")?];
    Some(head[head.rfind('`')? + 1..].to_owned())
}

fn environment(limits: &Limits) -> Environment<'static> {
    let mut env = Environment::new();
    // The built-in filters, tests and functions are pure and charge fuel; which of them a template may name
    // is decided by `vet`. Features that read clocks or files are not compiled in, and of the functions one
    // is kept.
    for global in ["debug", "dict", "namespace"] {
        env.remove_global(global);
    }
    env.set_debug(false);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|name| if name == HTML { AutoEscape::Html } else { AutoEscape::None });
    env.set_fuel(Some(limits.fuel));
    env.set_recursion_limit(limits.max_recursion);
    env
}

fn syntax_finding(part: &str, error: &Error) -> Finding {
    let problem = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let fix = "write tags as {{ name }}, {% if name %} ... {% endif %}, {# comment #}";
    Finding::new(part, problem, fix).at(error.line())
}
