//! Each endpoint answers on every path that it has had: r0, v3, v1, unstable.

use std::collections::BTreeSet;

use http::Method;
use ruma::api::{Metadata, path_builder::PathBuilder};

use crate::common::{TestServer, endpoints::endpoints};

/// An endpoint of the specification: its method, and all paths that it has had.
struct Known {
    method: Method,
    paths: Vec<&'static str>,
}

fn known<R: Metadata>() -> Known {
    Known { method: R::METHOD, paths: R::PATH_BUILDER.all_paths().collect() }
}

macro_rules! known {
    ($($($module:ident)::+,)*) => { vec![$(known::<ruma::api::client::$($module)::+::Request>(),)*] };
}

/// The endpoints of the client-server API that are served.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn served() -> Vec<Known> {
    known![
        account::change_password::v3,
        account::check_registration_token_validity::v1,
        account::deactivate::v3,
        account::get_3pids::v3,
        account::get_username_availability::v3,
        account::register::v3,
        account::whoami::v3,
        admin::get_user_info::v3,
        alias::create_alias::v3,
        alias::delete_alias::v3,
        alias::get_alias::v3,
        config::get_global_account_data::v3,
        config::get_room_account_data::v3,
        config::set_global_account_data::v3,
        config::set_room_account_data::v3,
        context::get_context::v3,
        device::delete_device::v3,
        device::delete_devices::v3,
        device::get_device::v3,
        device::get_devices::v3,
        device::update_device::v3,
        directory::get_public_rooms::v3,
        directory::get_public_rooms_filtered::v3,
        directory::get_room_visibility::v3,
        directory::set_room_visibility::v3,
        discovery::discover_homeserver,
        discovery::discover_support,
        discovery::get_capabilities::v3,
        discovery::get_supported_versions,
        filter::create_filter::v3,
        filter::get_filter::v3,
        keys::claim_keys::v3,
        keys::get_key_changes::v3,
        keys::get_keys::v3,
        keys::upload_keys::v3,
        keys::upload_signatures::v3,
        keys::upload_signing_keys::v3,
        knock::knock_room::v3,
        membership::ban_user::v3,
        membership::forget_room::v3,
        membership::get_member_events::v3,
        membership::invite_user::v3,
        membership::join_room_by_id::v3,
        membership::join_room_by_id_or_alias::v3,
        membership::joined_members::v3,
        membership::joined_rooms::v3,
        membership::kick_user::v3,
        membership::leave_room::v3,
        membership::unban_user::v3,
        message::get_message_events::v3,
        message::send_message_event::v3,
        presence::get_presence::v3,
        presence::set_presence::v3,
        profile::delete_profile_field::v3,
        profile::get_profile::v3,
        profile::get_profile_field::v3,
        profile::set_profile_field::v3,
        push::delete_pushrule::v3,
        push::get_pushers::v3,
        push::get_pushrule::v3,
        push::get_pushrule_actions::v3,
        push::get_pushrule_enabled::v3,
        push::get_pushrules_all::v3,
        push::get_pushrules_global_scope::v3,
        push::set_pusher::v3,
        push::set_pushrule::v3,
        push::set_pushrule_actions::v3,
        push::set_pushrule_enabled::v3,
        read_marker::set_read_marker::v3,
        receipt::create_receipt::v3,
        redact::redact_event::v3,
        relations::get_relating_events::v1,
        relations::get_relating_events_with_rel_type::v1,
        relations::get_relating_events_with_rel_type_and_event_type::v1,
        reporting::report_user::v3,
        room::aliases::v3,
        room::create_room::v3,
        room::get_event_by_timestamp::v1,
        room::get_room_event::v3,
        room::get_summary::v1,
        room::report_content::v3,
        room::report_room::v3,
        session::get_login_token::v1,
        session::get_login_types::v3,
        session::login::v3,
        session::logout::v3,
        session::logout_all::v3,
        session::refresh_token::v3,
        state::get_state_event_for_key::v3,
        state::get_state_events::v3,
        state::send_state_event::v3,
        sync::sync_events::v3,
        tag::create_tag::v3,
        tag::delete_tag::v3,
        tag::get_tags::v3,
        threads::get_threads::v1,
        to_device::send_event_to_device::v3,
        typing::create_typing_event::v3,
        uiaa::get_uiaa_fallback_page::v3,
        user_directory::search_users::v3,
    ]
}

/// What is served besides, under these paths alone.
const OTHERS: &[&str] = &["/_matrix/client/v2_alpha/sync", "/_matrix/client/v3/auth/{stage}/fallback/web"];

/// A path with its parameters left out.
fn bare(path: &str) -> String {
    let bare = |segment| if str::starts_with(segment, '{') { "{}" } else { segment };
    path.split('/').map(bare).collect::<Vec<_>>().join("/")
}

/// A path with something for each parameter.
fn filled(path: &str) -> String {
    let fill = |segment: &str| match segment.trim_matches(['{', '}']) {
        name if name == segment => name.to_owned(),
        "room_id" | "room_id_or_alias" => "!room:test.example".into(),
        "user_id" => "@nobody:test.example".into(),
        "event_id" | "root_event_id" => "$event".into(),
        "room_alias" => "%23alias:test.example".into(),
        "kind" => "override".into(),
        "receipt_type" => "m.read".into(),
        "rel_type" => "m.thread".into(),
        "field" | "field_name" => "displayname".into(),
        _ => "something".into(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_endpoint_answers_on_every_path_that_it_has_had() {
    let server = TestServer::start().await;
    let client = server.client();
    let mut missing = Vec::new();
    for Known { method, paths } in served() {
        for path in paths {
            let reply = client.send_raw(method.clone(), &filled(path), "{}").await;
            if reply["errcode"] == "M_UNRECOGNIZED" {
                missing.push(format!("{method} {path}: {}", reply.status));
            }
        }
    }
    assert!(missing.is_empty(), "not served:\n  {}", missing.join("\n  "));
    // That is how what is not served answers.
    let unknown = client.send_raw(Method::GET, "/_matrix/client/r0/something", "{}").await;
    assert_eq!(unknown.error(), (404, "M_UNRECOGNIZED"));
    let wrong = client.send_raw(Method::DELETE, "/_matrix/client/v3/sync", "{}").await;
    assert_eq!(wrong.error(), (405, "M_UNRECOGNIZED"));
    server.finish().await;
}

#[test]
fn every_endpoint_that_is_served_is_compared() {
    let known: BTreeSet<(String, String)> = served()
        .iter()
        .flat_map(|known| known.paths.iter().map(|path| (known.method.to_string(), bare(path))))
        .collect();
    let compared =
        |method: &str, path: &str| OTHERS.contains(&path) || known.contains(&(method.to_owned(), bare(path)));
    let endpoints = endpoints().into_iter().filter(|endpoint| endpoint.path.starts_with("/_matrix/client"));
    let missing = endpoints.filter(|endpoint| !compared(&endpoint.method, &endpoint.path));
    let missing: Vec<_> = missing.map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)).collect();
    assert!(missing.is_empty(), "name their types in served(): {missing:#?}");
}
