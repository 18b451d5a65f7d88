//! A whole SELECT: parsed, checked, and ready to run.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono_tz::Tz;
use serde_json::{Map, Value as Json};
use sqlparser::ast::{
    Expr, GroupByExpr, LimitClause, OrderByKind, Query, Select as SqlSelect, SelectItem, SetExpr, Statement,
    TableFactor, WildcardAdditionalOptions,
};
use sqlparser::dialect::ClickHouseDialect;
use sqlparser::parser::Parser;

use super::aggregate::{Aggregate, AggregateFunction};
use super::column::Column;
use super::expression::{Expression, Node};
use super::lower::Lowering;
use super::refusal::similar;
use super::schema::Schema;
use super::table::{Source, Table};
use super::value::{Kind, Value};
use crate::posthog::error::ApiError;

const OFFSET: &str = "OFFSET is not supported on queries made with a personal API key. For pagination, use keyset \
    pagination on the `timestamp` column, e.g. `WHERE timestamp > :last_seen_timestamp ORDER BY timestamp LIMIT N`. For \
    bulk data extraction, use batch exports: https://posthog.com/docs/cdp/batch-exports";

/// One column of the result.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) expression: Expression,
}

/// What a query asks for.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) source: Source,
    pub(crate) outputs: Vec<Output>,
    pub(crate) filter: Option<Expression>,
    /// Group keys; `None` if rows aren't grouped at all.
    pub(crate) groups: Option<Vec<Expression>>,
    pub(crate) aggregates: Vec<Aggregate>,
    /// Expressions, and whether they descend.
    pub(crate) order: Vec<(Expression, bool)>,
    pub(crate) limit: Option<usize>,
    pub(crate) schema: Schema,
}

/// What a query means depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Zone in which times are shown.
    pub(crate) shown: Tz,
    /// Zone in which literals without a zone are read.
    pub(crate) literals: Tz,
    pub(crate) schema: Schema,
    /// The server's time in microseconds since 1970.
    pub(crate) now: i64,
}

/// Parses and checks HogQL; `{name}` stands for one of `values`.
pub(crate) fn compile(text: &str, values: &Map<String, Json>, setting: Setting) -> Result<Select, ApiError> {
    let sql = super::placeholder::fill(text, values)?;
    let query = parse(&sql).map_err(|error| ApiError::code("syntax_error", error))?;
    let select = check(&query, setting)?;
    // The driver behind PostHog tries to read them as UTF-8.
    if let Some(output) = select.outputs.iter().find(|output| output.expression.kind.holds_bytes()) {
        return Err(ApiError::unsupported(format_args!("the bytes `{}` in an answer", output.name)));
    }
    Ok(select)
}

/// A query or one that stands in place of a table.
fn check(query: &Query, setting: Setting) -> Result<Select, ApiError> {
    let (limit, offset) = limit(query)?;
    if offset {
        return Err(ApiError::invalid(OFFSET));
    }
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Err(ApiError::unsupported(format_args!("`{}`", query.body)));
    };
    refuse_the_rest(query, select)?;
    let (source, name_of_source) = source(select, setting)?;
    let mut lowering = Lowering {
        source: &source,
        name: name_of_source,
        shown: setting.shown,
        literals: setting.literals,
        now: setting.now,
        schema: setting.schema,
        aliases: HashMap::new(),
        aggregates: Vec::new(),
    };

    let mut outputs = Vec::new();
    for item in &select.projection {
        let output = match item {
            SelectItem::Wildcard(options) if *options == WildcardAdditionalOptions::default() => {
                for name in lowering.source.asterisk(setting.schema) {
                    outputs.push(Output { name: name.to_owned(), expression: lowering.stored(name)? });
                }
                continue;
            }
            SelectItem::UnnamedExpr(expr) => Output { name: name(expr), expression: lowering.expression(expr)? },
            SelectItem::ExprWithAlias { expr, alias } => {
                let expression = lowering.expression(expr)?;
                lowering.aliases.insert(alias.value.clone(), expression.clone());
                Output { name: alias.value.clone(), expression }
            }
            other => return Err(ApiError::unsupported(format_args!("`{other}` in a SELECT list"))),
        };
        outputs.push(output);
    }
    let filter = select.selection.as_ref().map(|expr| lowering.expression(expr)).transpose()?;
    if filter.as_ref().is_some_and(has_aggregate) {
        return Err(ApiError::code("illegal_aggregation", "Aggregate function is found in WHERE"));
    }
    let mut groups = Vec::new();
    if let GroupByExpr::Expressions(expressions, _) = &select.group_by {
        for expr in expressions {
            groups.push(match position(expr, &outputs)? {
                Some(expression) => expression,
                None => lowering.expression(expr)?,
            });
        }
    }
    let mut order = Vec::new();
    if let Some(by) = &query.order_by {
        let OrderByKind::Expressions(expressions) = &by.kind else { return Err(ApiError::unsupported("ORDER BY ALL")) };
        for by in expressions {
            if by.options.nulls_first.is_some() || by.with_fill.is_some() {
                return Err(ApiError::unsupported(format_args!("`ORDER BY {by}`")));
            }
            let expression = match position(&by.expr, &outputs)? {
                Some(expression) => expression,
                None => lowering.expression(&by.expr)?,
            };
            order.push((expression, by.options.asc == Some(false)));
        }
    }
    let grouped = !groups.is_empty() || !lowering.aggregates.is_empty();
    if grouped {
        for expression in outputs.iter().map(|output| &output.expression).chain(order.iter().map(|(by, _)| by)) {
            only_groups(expression, &groups)?;
        }
    }
    let groups = grouped.then_some(groups);
    let aggregates = lowering.aggregates;
    Ok(Select { source, outputs, filter, groups, aggregates, order, limit, schema: setting.schema })
}

/// The output that a bare number in GROUP BY or ORDER BY stands for.
fn position(expr: &Expr, outputs: &[Output]) -> Result<Option<Expression>, ApiError> {
    let Expr::Value(value) = expr else { return Ok(None) };
    let found = value.to_string().parse::<usize>().ok().and_then(|number| outputs.get(number.checked_sub(1)?));
    let found = found.ok_or_else(|| ApiError::unsupported(format_args!("`{expr}` in place of a column")))?;
    Ok(Some(found.expression.clone()))
}

pub(super) fn parse(sql: &str) -> Result<Box<Query>, String> {
    let mut statements = Parser::parse_sql(&ClickHouseDialect {}, sql).map_err(|error| error.to_string())?;
    match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => Ok(query),
        _ => Err("Only one SELECT query is supported".to_owned()),
    }
}

/// The limit, and whether there is any offset.
fn limit(query: &Query) -> Result<(Option<usize>, bool), ApiError> {
    let number =
        |expr: &Expr| expr.to_string().parse().map_err(|_| ApiError::unsupported(format_args!("`LIMIT {expr}`")));
    match &query.limit_clause {
        None => Ok((None, false)),
        Some(LimitClause::OffsetCommaLimit { .. } | LimitClause::LimitOffset { offset: Some(_), .. }) => {
            Ok((None, true))
        }
        Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty() => {
            Err(ApiError::unsupported("LIMIT BY"))
        }
        Some(LimitClause::LimitOffset { limit, .. }) => Ok((limit.as_ref().map(number).transpose()?, false)),
    }
}

/// The parser knows dozens of clauses. With everything that is evaluated put aside, nothing may be
/// left that the plainest query doesn't have.
fn refuse_the_rest(query: &Query, select: &SqlSelect) -> Result<(), ApiError> {
    static PLAINEST: LazyLock<Option<Box<Query>>> = LazyLock::new(|| parse("SELECT 1 GROUP BY 1").ok());
    let Some(plainest) = PLAINEST.as_ref() else { return Err(ApiError::unsupported("anything")) };
    let SetExpr::Select(reference) = plainest.body.as_ref() else { return Err(ApiError::unsupported("anything")) };
    let rest = SqlSelect {
        projection: reference.projection.clone(),
        from: Vec::new(),
        selection: None,
        group_by: match &select.group_by {
            GroupByExpr::Expressions(_, modifiers) if modifiers.is_empty() => reference.group_by.clone(),
            other => other.clone(),
        },
        ..select.clone()
    };
    let outer = Query {
        body: plainest.body.clone(),
        order_by: query.order_by.clone().filter(|by| by.interpolate.is_some()),
        limit_clause: None,
        ..query.clone()
    };
    if rest == **reference && outer == **plainest {
        return Ok(());
    }
    Err(ApiError::unsupported(format_args!("one of the clauses of `{query}`")))
}

/// What the query reads, and what it calls it.
fn source(select: &SqlSelect, setting: Setting) -> Result<(Source, Option<String>), ApiError> {
    let [from] = select.from.as_slice() else { return Err(ApiError::unsupported("a query of no or several tables")) };
    let refused = || ApiError::unsupported(format_args!("FROM `{from}`"));
    if !from.joins.is_empty() {
        return Err(refused());
    }
    match &from.relation {
        TableFactor::Table { name, alias, .. } => {
            let text = name.to_string();
            let own = alias.as_ref().map_or_else(|| text.clone(), |alias| alias.name.value.clone());
            let plain = alias.as_ref().map_or_else(|| text.clone(), |alias| format!("{text} {alias}"));
            let columns = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
            if from.to_string() != plain || columns || NO_ALIAS.contains(&own.to_ascii_uppercase().as_str()) {
                return Err(refused());
            }
            let bare = text.replace('`', "");
            match Table::find(&bare) {
                Some(table) => Ok((Source::Table(table), Some(own))),
                None if Table::is_absent(&bare) => Err(ApiError::unsupported(format_args!("the table `{bare}`"))),
                None => {
                    let suggestions = similar(&bare, &Table::names());
                    Err(ApiError::refused(format!("Unknown table `{bare}`."), suggestions))
                }
            }
        }
        TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
            if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
                return Err(refused());
            }
            let select = check(subquery, setting)?;
            Ok((Source::Query(Box::new(select)), alias.as_ref().map(|alias| alias.name.value.clone())))
        }
        _ => Err(refused()),
    }
}

/// What the parser takes for a name and HogQL doesn't.
const NO_ALIAS: [&str; 3] = ["FINAL", "SAMPLE", "ARRAY"];

/// The name of a column that has no alias.
fn name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()).unwrap_or_default(),
        other => other.to_string(),
    }
}

pub(super) fn has_aggregate(expression: &Expression) -> bool {
    match &expression.node {
        Node::Aggregate(_) => true,
        Node::Literal(_) | Node::Column(_) => false,
        Node::Tuple(items) | Node::Call(_, items) | Node::All(items) | Node::Any(items) => {
            items.iter().any(has_aggregate)
        }
        Node::Compare(_, left, right) => has_aggregate(left) || has_aggregate(right),
        Node::In { item, .. } | Node::IsNull { item, .. } | Node::Not(item) => has_aggregate(item),
    }
}

/// Beside aggregates, a grouped query may only show its group keys.
fn only_groups(expression: &Expression, groups: &[Expression]) -> Result<(), ApiError> {
    if groups.contains(expression) {
        return Ok(());
    }
    match &expression.node {
        Node::Aggregate(_) | Node::Literal(_) => Ok(()),
        Node::Tuple(items) | Node::Call(_, items) => items.iter().try_for_each(|item| only_groups(item, groups)),
        Node::Column(column) => Err(ApiError::code(
            "not_an_aggregate",
            format!("Column {column:?} is not under aggregate function and not in GROUP BY keys"),
        )),
        _ => Err(ApiError::unsupported("conditions in the SELECT list of a grouped query")),
    }
}

impl Select {
    /// The range of timestamps outside of which no row can match, ends included.
    pub(crate) fn range(&self) -> (i64, i64) {
        let mut range = (i64::MIN, i64::MAX);
        if let Some(filter) = &self.filter {
            narrow(filter, &mut range);
        }
        range
    }

    /// Positions of plain counts in the answer.
    pub(crate) fn counts(&self) -> Vec<usize> {
        let is_count = |output: &Output| match output.expression.node {
            Node::Aggregate(index) => {
                self.aggregates.get(index).is_some_and(|each| each.function == AggregateFunction::Count)
            }
            _ => false,
        };
        (0..self.outputs.len()).filter(|index| self.outputs.get(*index).is_some_and(is_count)).collect()
    }

    /// Whether the column (long, if it is the properties) has to be read.
    pub(crate) fn reads(&self, column: Column) -> bool {
        let outputs = self.outputs.iter().map(|output| &output.expression);
        outputs.chain(&self.filter).chain(self.order.iter().map(|(by, _)| by)).any(|each| each.reads(column))
            || self
                .aggregates
                .iter()
                .flat_map(|each| each.argument.iter().chain(&each.condition))
                .any(|each| each.reads(column))
    }
}

fn narrow(filter: &Expression, range: &mut (i64, i64)) {
    use super::expression::Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    match &filter.node {
        Node::All(items) => items.iter().for_each(|item| narrow(item, range)),
        Node::Any(items) => {
            let each = items.iter().map(|item| {
                let mut own = *range;
                narrow(item, &mut own);
                own
            });
            *range = each.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or(*range);
        }
        Node::Compare(comparison, left, right) => {
            let (comparison, bound) = match (is_timestamp(left), is_timestamp(right)) {
                (true, false) => (*comparison, time(right)),
                (false, true) => (comparison.flipped(), time(left)),
                _ => return,
            };
            let Some(bound) = bound else { return };
            let single = !matches!(left.kind, Kind::Tuple(_));
            match comparison {
                // With a tuple, later items decide on a tie.
                Greater if single => range.0 = range.0.max(bound.saturating_add(1)),
                Less if single => range.1 = range.1.min(bound.saturating_sub(1)),
                Greater | GreaterOrEqual => range.0 = range.0.max(bound),
                Less | LessOrEqual => range.1 = range.1.min(bound),
                Equal => *range = (range.0.max(bound), range.1.min(bound)),
                NotEqual => {}
            }
        }
        _ => {}
    }
}

/// Whether the expression is the timestamp or a tuple that starts with it.
pub(crate) fn is_timestamp(expression: &Expression) -> bool {
    match &expression.node {
        Node::Column(Column::Timestamp) => true,
        Node::Tuple(items) => items.first().is_some_and(is_timestamp),
        _ => false,
    }
}

fn time(expression: &Expression) -> Option<i64> {
    match &expression.node {
        Node::Literal(Value::Time(micros)) => Some(*micros),
        Node::Tuple(items) => time(items.first()?),
        _ => None,
    }
}
