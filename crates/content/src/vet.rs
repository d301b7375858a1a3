//! The part of the template language that is taken.
//!
//! Fuel bounds what a template does, with one gap in MiniJinja 3.1: turning a list into text is charged when
//! it is done. `[1] * 99999999` and `{% set a = a + a %}` are small to make and endless to print or compare.
//! So lists come from a recipient's variables, which are bounded, and no template can make them grow: it
//! adds and multiplies what is known to be a number or a text, its own lists hold constants, and filters,
//! tests and functions are those named here.

use crate::Finding;
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Filter, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;

/// Filters whose result is a text, a number or a truth value.
const SCALAR_FILTERS: [&str; 21] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "e",
    "escape",
    "float",
    "format",
    "indent",
    "int",
    "join",
    "length",
    "lower",
    "replace",
    "round",
    "safe",
    "string",
    "title",
    "trim",
    "upper",
    "urlencode",
];

/// Filters that pick from or order what they are given.
const OTHER_FILTERS: [&str; 20] = [
    "attr",
    "d",
    "default",
    "dictsort",
    "first",
    "items",
    "last",
    "lines",
    "list",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "sort",
    "split",
    "unique",
];

const TESTS: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// What in a part is not taken, with its line. The part parses.
pub(crate) fn vet(part: &str, source: &str) -> Result<(), Finding> {
    let Ok(tree) = parse(source, part, SyntaxConfig::default()) else {
        return Err(Finding::new(part, "does not parse", "see the template language"));
    };
    stmt(&tree).map_err(|refused| {
        Finding::new(part, refused.problem, refused.fix).at(Some(usize::from(refused.span.start_line)))
    })
}

struct Refused {
    span: Span,
    problem: String,
    fix: String,
}

type Vetted = Result<(), Refused>;

fn refuse(span: Span, problem: impl Into<String>, fix: impl Into<String>) -> Vetted {
    Err(Refused { span, problem: problem.into(), fix: fix.into() })
}

fn body(stmts: &[Stmt<'_>]) -> Vetted {
    stmts.iter().try_for_each(stmt)
}

fn stmt(node: &Stmt<'_>) -> Vetted {
    match node {
        Stmt::Template(node) => body(&node.children),
        Stmt::EmitExpr(node) => expr(&node.expr),
        Stmt::EmitRaw(_) => Ok(()),
        Stmt::ForLoop(node) => {
            expr(&node.iter)?;
            optional(node.filter_expr.as_ref())?;
            body(&node.body)?;
            body(&node.else_body)
        }
        Stmt::IfCond(node) => {
            expr(&node.expr)?;
            body(&node.true_body)?;
            body(&node.false_body)
        }
        Stmt::WithBlock(node) => {
            node.assignments.iter().try_for_each(|(_, value)| expr(value))?;
            body(&node.body)
        }
        Stmt::Set(node) => expr(&node.expr),
        Stmt::SetBlock(node) => {
            optional(node.filter.as_ref())?;
            body(&node.body)
        }
        Stmt::FilterBlock(node) => {
            expr(&node.filter)?;
            body(&node.body)
        }
        Stmt::AutoEscape(node) => {
            refuse(node.span(), "switches escaping", "mark one value that is HTML already: {{ value | safe }}")
        }
        Stmt::Do(node) => refuse(node.span(), "uses {% do %}", "use {% set name = value %}"),
    }
}

fn optional(node: Option<&Expr<'_>>) -> Vetted {
    node.map_or(Ok(()), expr)
}

fn expr(node: &Expr<'_>) -> Vetted {
    match node {
        Expr::Var(_) | Expr::Const(_) => Ok(()),
        Expr::Slice(node) => {
            expr(&node.expr)?;
            [&node.start, &node.stop, &node.step].into_iter().try_for_each(|part| optional(part.as_ref()))
        }
        Expr::UnaryOp(node) => expr(&node.expr),
        Expr::BinOp(node) => {
            expr(&node.left)?;
            expr(&node.right)?;
            let (left, right) = (is_scalar(&node.left), is_scalar(&node.right));
            match node.op {
                BinOpKind::Add if !left && !right => refuse(
                    node.span(),
                    "adds what may be two lists",
                    "say what is added: {{ price | float + tax }}, or join texts with {{ a ~ b }}",
                ),
                BinOpKind::Mul if !left || !right => refuse(
                    node.span(),
                    "multiplies what may be a list",
                    "say that both are numbers: {{ price | float * count | int }}",
                ),
                _ => Ok(()),
            }
        }
        Expr::Compare(node) => {
            expr(&node.expr)?;
            node.ops.iter().try_for_each(|op| expr(&op.expr))
        }
        Expr::IfExpr(node) => {
            expr(&node.test_expr)?;
            expr(&node.true_expr)?;
            optional(node.false_expr.as_ref())
        }
        Expr::Filter(node) => filter(node, node.span()),
        Expr::Test(node) => {
            if !is_test(node.name) {
                return refuse(node.span(), format!("uses the test {}, which is not taken", node.name), test_fix());
            }
            expr(&node.expr)?;
            arguments(&node.args, node.span())
        }
        Expr::GetAttr(node) => expr(&node.expr),
        Expr::GetItem(node) => {
            expr(&node.expr)?;
            expr(&node.subscript_expr)
        }
        Expr::Call(node) => {
            let known = match &node.expr {
                Expr::Var(var) => matches!(var.id, "range" | "loop"),
                Expr::GetAttr(attr) => {
                    matches!(&attr.expr, Expr::Var(var) if var.id == "loop") && matches!(attr.name, "cycle" | "changed")
                }
                _ => false,
            };
            if !known {
                let fix = "there are range(n), loop(children), loop.cycle(...) and loop.changed(value), and filters";
                return refuse(node.span(), "calls a function that there is not", fix);
            }
            arguments(&node.args, node.span())
        }
        Expr::List(node) => constants(&node.items, node.span()),
        Expr::Tuple(node) => constants(&node.items, node.span()),
        Expr::Map(node) => {
            constants(&node.keys, node.span())?;
            constants(&node.values, node.span())
        }
    }
}

fn filter_fix() -> String {
    format!("use one of {}, {}", SCALAR_FILTERS.join(", "), OTHER_FILTERS.join(", "))
}

fn test_fix() -> String {
    format!("use one of {}", TESTS.join(" "))
}

fn is_test(name: &str) -> bool {
    TESTS.contains(&name)
}

fn filter(node: &Filter<'_>, span: Span) -> Vetted {
    let name = node.name;
    if !SCALAR_FILTERS.contains(&name) && !OTHER_FILTERS.contains(&name) {
        return refuse(span, format!("uses the filter {name}, which is not taken"), filter_fix());
    }
    optional(node.expr.as_ref())?;
    arguments(&node.args, span)?;
    match name {
        // Only forms whose result is no larger than what went in.
        "map" => match node.args.as_slice() {
            [CallArg::Kwarg("attribute", attribute)] if text(attribute).is_some() => Ok(()),
            [CallArg::Pos(filter)] if text(filter).is_some_and(|name| SCALAR_FILTERS.contains(&name)) => Ok(()),
            _ => refuse(span, "uses map in a form that is not taken", "write map(attribute='name') or map('upper')"),
        },
        "select" | "reject" => named_test(node.args.first(), span),
        "selectattr" | "rejectattr" => named_test(node.args.get(1), span),
        _ => Ok(()),
    }
}

fn named_test(argument: Option<&CallArg<'_>>, span: Span) -> Vetted {
    match argument {
        None => Ok(()),
        Some(CallArg::Pos(name)) if text(name).is_some_and(is_test) => Ok(()),
        Some(_) => refuse(span, "uses a test that is not taken", test_fix()),
    }
}

fn arguments(args: &[CallArg<'_>], span: Span) -> Vetted {
    args.iter().try_for_each(|arg| match arg {
        CallArg::Pos(value) | CallArg::Kwarg(_, value) => expr(value),
        CallArg::PosSplat(_) | CallArg::KwargSplat(_) => refuse(span, "spreads arguments", "write each argument"),
    })
}

fn constants(items: &[Expr<'_>], span: Span) -> Vetted {
    let is_constant = |item: &Expr<'_>| match item {
        Expr::Const(_) => true,
        Expr::UnaryOp(node) => matches!(node.expr, Expr::Const(_)),
        _ => false,
    };
    if items.iter().all(is_constant) {
        return Ok(());
    }
    refuse(span, "has a list of something else than constants", "give lists as variables")
}

fn text<'a>(node: &'a Expr<'_>) -> Option<&'a str> {
    match node {
        Expr::Const(node) => node.value.as_str(),
        _ => None,
    }
}

/// Whether this is a text, a number or a truth value, whatever its variables hold.
fn is_scalar(node: &Expr<'_>) -> bool {
    match node {
        // Constants of other kinds do not come out of the parser.
        Expr::Const(_) | Expr::Compare(_) | Expr::Test(_) | Expr::UnaryOp(_) => true,
        Expr::BinOp(node) => match node.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => is_scalar(&node.left) && is_scalar(&node.right),
            // Those that were let through above make scalars too.
            _ => true,
        },
        Expr::IfExpr(node) => is_scalar(&node.true_expr) && node.false_expr.as_ref().is_none_or(is_scalar),
        Expr::Filter(node) => SCALAR_FILTERS.contains(&node.name),
        Expr::GetAttr(node) => {
            matches!(&node.expr, Expr::Var(var) if var.id == "loop")
                && matches!(node.name, "index" | "index0" | "revindex" | "revindex0" | "length" | "depth" | "depth0")
        }
        Expr::Var(_)
        | Expr::Slice(_)
        | Expr::GetItem(_)
        | Expr::Call(_)
        | Expr::List(_)
        | Expr::Tuple(_)
        | Expr::Map(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::vet;

    #[test]
    fn ordinary_templates_are_taken() {
        for source in [
            "Hi {{ user.name | default('friend') | title }}",
            "{% for x in xs if x.on %}{{ loop.index + 1 }}. {{ x.name ~ '!' }}{% else %}none{% endfor %}",
            "{% if plan in ['pro', 'team'] and n is divisibleby 2 %}{{ price | float * count | int }}{% endif %}",
            "{% set total = items | map(attribute='price') | join(', ') %}{{ items[0].a[-1:] }}",
            "{{ 'a' if x else 'b' }} {{ -3 }} {{ xs | selectattr('on', 'eq', true) | list | length }}",
            "{% for c in tree recursive %}{{ loop(c.children) }}{{ loop.cycle('a', 'b') }}{% endfor %}",
            "{% for i in range(3) %}{{ i | int + 1 }}{% endfor %}{% with a = 1 %}{{ a }}{% endwith %}",
        ] {
            assert!(vet("text", source).is_ok(), "{source}: {:?}", vet("text", source));
        }
    }

    #[test]
    fn what_could_grow_lists_is_refused_with_its_line() {
        for source in [
            "\n{{ [1] * 99 }}",
            "\n{{ xs * 99 }}",
            "\n{{ xs + xs }}",
            "\n{% set a = [a, a] %}",
            "\n{{ {'a': a} }}",
            "\n{{ xs | chain(xs) }}",
            "\n{{ xs | map('default', xs) }}",
            "\n{{ xs | map(attribute='x', default=xs) }}",
            "\n{{ xs | groupby('a') }}",
            "\n{{ dict(a=b) }}",
            "\n{{ range(*xs) }}",
            "\n{{ xs.append(1) }}",
            "\n{% autoescape false %}{% endautoescape %}",
            "\n{% if x is filter %}{% endif %}",
        ] {
            assert_eq!(vet("text", source).expect_err(source).line, Some(2), "{source}");
        }
    }
}
