//! Whether the LAN can do what containers need: what is seen ([`facts`]), and what that means ([`verdict`], pure).

mod facts;
mod platform;
mod probe;
mod verdict;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::Lan;
use crate::report::Finding;
use crate::spec::Mac;

pub use facts::{Claim, Facts, Offer};
pub use platform::Platform;

/// How long offers are waited for: servers that ping an address first take three seconds, and a second server may be
/// slower than the first.
const LISTEN: Duration = Duration::from_secs(5);

impl Lan {
    /// Looks at every parent that a network uses, and `configured`. `probe` is the MAC for a DISCOVER; the offer it
    /// brings is not taken.
    pub async fn examine(&self, configured: Option<&str>, probe: Mac) -> Vec<Finding> {
        let used = self.networks().values().map(|network| network.parent.clone()).collect::<BTreeSet<_>>();
        let parents: BTreeSet<String> = used.into_iter().chain(configured.map(str::to_owned)).collect();
        // One at a time: two would hear each other's offers.
        let _turn = self.probing.lock().await;
        let looks =
            parents.iter().map(|parent| facts::look(self, Path::new("/sys"), parent, (probe, LISTEN)));
        let all = futures_util::future::join_all(looks).await;
        all.into_iter()
            .flat_map(|facts| match facts {
                Ok(facts) => verdict::findings(&facts),
                Err(error) => vec![Finding::of(verdict::AREA, &error)],
            })
            .collect()
    }
}
