//! What only root can look at, for `doctor`. Each area is one function from what is seen to findings; what is seen is
//! data, so that the judgement is tested without a broken host.

mod clock;
mod engine;
mod host;
mod store;

use std::sync::Arc;

use super::App;
use crate::report::Finding;
use crate::spec::Mac;

/// Everything, area by area. It takes some seconds: DHCP servers are given time to answer.
pub async fn findings(app: &Arc<App>, deep: bool) -> Vec<Finding> {
    let config = &app.host.config;
    let probe = Mac::probe(&config.mac_prefix, &app.host.host_id);
    let parent = config.parent.as_ref().map(|base| match config.vlan {
        Some(id) => crate::lan::vlan_interface(base, id),
        None => base.clone(),
    });
    let (engine, network) =
        tokio::join!(engine::findings(&app.host), app.host.lan.examine(parent.as_deref(), probe));
    let layers = match deep {
        true => {
            let app = app.clone();
            let looked = crate::container::blocking(move || Ok(store::deep(&app.host))).await;
            looked.unwrap_or_else(|e| vec![Finding::of("opt", &e)])
        }
        false => Vec::new(),
    };
    let all = [host::findings(&app.host), store::findings(&app.host), layers, engine, network];
    all.into_iter().flatten().collect()
}
