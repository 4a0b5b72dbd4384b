//! Client-server API, "Push Rules".
//!
//! `GET /_matrix/client/v3/pushrules/`, `GET /_matrix/client/v3/pushrules/global/`,
//! `GET`, `PUT` and `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`,
//! `GET` and `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`,
//! `GET` and `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`

use axum::Router;
use projections::models::push_rules;
use ruma::{
    UserId,
    api::client::push::{
        PushRule, RuleKind, delete_pushrule::v3 as delete_pushrule, get_pushrule::v3 as get_pushrule,
        get_pushrule_actions::v3 as get_pushrule_actions, get_pushrule_enabled::v3 as get_pushrule_enabled,
        get_pushrules_all::v3 as get_pushrules_all, get_pushrules_global_scope::v3 as get_pushrules_global,
        set_pushrule::v3 as set_pushrule, set_pushrule_actions::v3 as set_pushrule_actions,
        set_pushrule_enabled::v3 as set_pushrule_enabled,
    },
    push::{Action, NewPushRule, PushCondition},
};
use schemas::{Json, facts::PushRuleOp};
use serde::Serialize;

use super::lenient::Lenient;
use crate::{
    commands::{Refusal, content, push_rules::change},
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new()
        .matrix(all)
        .matrix_at("/_matrix/client/v3/pushrules", all)
        .matrix(global)
        .matrix_at("/_matrix/client/v3/pushrules/global", global)
        .matrix(rule)
        .matrix(put)
        .matrix(delete)
        .matrix(enabled)
        .matrix(set_enabled)
        .matrix(actions)
        .matrix(set_actions)
}

async fn all(app: App, request: Matrix<get_pushrules_all::Request>) -> Result<get_pushrules_all::Response, ApiError> {
    Ok(get_pushrules_all::Response::new(push_rules::of_user(&app.view()?, request.who.user.as_str())?))
}

async fn global(
    app: App,
    request: Matrix<get_pushrules_global::Request>,
) -> Result<get_pushrules_global::Response, ApiError> {
    Ok(get_pushrules_global::Response::new(push_rules::of_user(&app.view()?, request.who.user.as_str())?))
}

fn find(app: &App, user: &UserId, kind: RuleKind, rule: &str) -> Result<PushRule, ApiError> {
    let ruleset = push_rules::of_user(&app.view()?, user.as_str())?;
    let rule = ruleset.get(kind, rule).map(|rule| rule.to_owned().into());
    rule.ok_or_else(|| ApiError::not_found("there is no such push rule"))
}

async fn rule(app: App, request: Matrix<get_pushrule::Request>) -> Result<get_pushrule::Response, ApiError> {
    let rule = find(&app, &request.who.user, request.body.kind, &request.body.rule_id)?;
    Ok(get_pushrule::Response::new(rule))
}

async fn put(app: App, request: Matrix<Lenient<set_pushrule::Request>>) -> Result<set_pushrule::Response, ApiError> {
    let Lenient(set_pushrule::Request { rule, before, after, .. }) = request.body;
    let op = PushRuleOp::Put { rule: body_of(&rule)?, before, after };
    change(&app.commands, &request.who, &rule.kind(), rule.rule_id(), op).await?;
    Ok(set_pushrule::Response::new())
}

#[derive(Serialize)]
struct Body<'a> {
    actions: &'a [Action],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    conditions: &'a [PushCondition],
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
}

fn body_of(rule: &NewPushRule) -> Result<Json, Refusal> {
    let (actions, conditions, pattern) = match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => (&rule.actions, &rule.conditions[..], None),
        NewPushRule::Content(rule) => (&rule.actions, &[][..], Some(rule.pattern.as_str())),
        NewPushRule::Room(rule) => (&rule.actions, &[][..], None),
        NewPushRule::Sender(rule) => (&rule.actions, &[][..], None),
        other => return Err(Refusal::invalid(format!("there are no push rules of the kind {}", other.kind()))),
    };
    content::written(&Body { actions, conditions, pattern })
}

async fn delete(app: App, request: Matrix<delete_pushrule::Request>) -> Result<delete_pushrule::Response, ApiError> {
    let (kind, rule) = (&request.body.kind, &request.body.rule_id);
    change(&app.commands, &request.who, kind, rule, PushRuleOp::Removed).await?;
    Ok(delete_pushrule::Response::new())
}

async fn enabled(
    app: App,
    request: Matrix<get_pushrule_enabled::Request>,
) -> Result<get_pushrule_enabled::Response, ApiError> {
    let rule = find(&app, &request.who.user, request.body.kind, &request.body.rule_id)?;
    Ok(get_pushrule_enabled::Response::new(rule.enabled))
}

async fn set_enabled(
    app: App,
    request: Matrix<set_pushrule_enabled::Request>,
) -> Result<set_pushrule_enabled::Response, ApiError> {
    let (kind, rule, enabled) = (&request.body.kind, &request.body.rule_id, request.body.enabled);
    change(&app.commands, &request.who, kind, rule, PushRuleOp::Enabled(enabled)).await?;
    Ok(set_pushrule_enabled::Response::new())
}

async fn actions(
    app: App,
    request: Matrix<get_pushrule_actions::Request>,
) -> Result<get_pushrule_actions::Response, ApiError> {
    let rule = find(&app, &request.who.user, request.body.kind, &request.body.rule_id)?;
    Ok(get_pushrule_actions::Response::new(rule.actions))
}

async fn set_actions(
    app: App,
    request: Matrix<set_pushrule_actions::Request>,
) -> Result<set_pushrule_actions::Response, ApiError> {
    let (kind, rule) = (&request.body.kind, &request.body.rule_id);
    let op = PushRuleOp::Actions(content::written(&request.body.actions)?);
    change(&app.commands, &request.who, kind, rule, op).await?;
    Ok(set_pushrule_actions::Response::new())
}
