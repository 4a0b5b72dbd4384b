use anyhow::{bail, ensure};
use projections::View;
use schemas::Lsn;

use crate::{
    cli::output::Output,
    clock::{Clock, SystemClock},
    config::{Backend, Config},
    log::{EmbeddedLog, KafkaLog, amendments::Amendment},
};

/// Takes a record out of effect.
pub(super) fn run(config: &Config, void: Lsn, reason: &str, out: &mut Output) -> anyhow::Result<()> {
    ensure!(!reason.trim().is_empty(), "give a --reason: whoever audits the log will ask for it");
    ensure!(void > Lsn::FIRST, "the first record says whose log it is, and can't be taken out of effect");
    let read_models = config.read_models_folder();
    if let Some(view) = View::beside(&read_models)?.filter(|view| view.lsn() >= void) {
        let (folder, at) = (read_models.display(), view.lsn());
        bail!(
            "record {void} has been folded: the read models are at {at}. Only a record that can't be folded is to be \
             taken out of effect; to take out this one all the same, move {folder} away first, which lets the next \
             start fold the whole log anew"
        );
    }
    let amendment = Amendment { void, reason: reason.to_owned(), at_ms: SystemClock::default().now_ms() };
    match &config.log.backend {
        Backend::Embedded => EmbeddedLog::amend(&config.log_folder(), &amendment)?,
        Backend::Kafka(topic) => KafkaLog::amend(&config.log.kafka, topic, &amendment)?,
    }
    out.print(&amendment, |amendment| format!("record {} is void from now on, for every fold", amendment.void))?;
    Ok(())
}
