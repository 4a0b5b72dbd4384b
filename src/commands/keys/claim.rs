use projections::{
    View,
    models::keys::{self, Claimed},
};
use schemas::{
    Draft,
    facts::{Claim, OneTimeKeysClaimed},
};

use crate::commands::{Commands, Decision, Error, Sender, guards};

/// So many keys are claimed with one record: the fold writes some seven rows for each.
const CLAIMED_AT_ONCE: usize = 500;

/// Claims one key for each of some devices of this server's users. Who has none left is not among the results.
///
/// # Errors
/// Those of [`guards::standing`].
pub async fn claim(commands: &Commands, sender: &Sender, claims: Vec<Claim>) -> Result<Vec<Claimed>, Error> {
    let parts = commands.parts();
    if !parts.members.is_alone() && lacks_key(&parts.source.view()?, &claims)? {
        // It may have been uploaded to another node, and a message to whoever has no key can't be read.
        commands.catch_up().await?;
    }
    let mut claimed = Vec::with_capacity(claims.len());
    for some in claims.chunks(CLAIMED_AT_ONCE) {
        let (by, some) = (sender.clone(), some.to_vec());
        claimed.extend(commands.execute(sender, move |view| decide(view, &by, &some)).await?);
    }
    claimed.retain(|claimed| claimed.key.is_some());
    Ok(claimed)
}

fn decide(view: &View, by: &Sender, claims: &[Claim]) -> Result<Decision<Vec<Claimed>>, Error> {
    let reads = guards::standing(view, by)?;
    let mut promising = Vec::new();
    for claim in claims {
        if has_key(view, claim)? {
            promising.push(claim.clone());
        }
    }
    if promising.is_empty() {
        return Ok(Decision::Reply(Vec::new()));
    }
    let facts = vec![OneTimeKeysClaimed { claims: promising }.into()];
    // Which keys these are, the fold alone says: whoever claims at the same time gets others.
    Ok(Decision::append(Draft { reads, writes: Vec::new(), facts }, |done| Ok(keys::claimed(&done.view()?, done.lsn)?)))
}

fn lacks_key(view: &View, claims: &[Claim]) -> Result<bool, Error> {
    for claim in claims {
        if !has_key(view, claim)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_key(view: &View, Claim { user, device, algorithm }: &Claim) -> Result<bool, Error> {
    let left = keys::counts(view, user, device)?.get(algorithm).copied().unwrap_or_default();
    Ok(left > 0 || keys::fallback_key(view, user, device, algorithm)?.is_some())
}
