//! A DISCOVER whose offers are listened to and never taken; and who else has the addresses that containers use.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dhcproto::v4::MessageType;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Claim, Offer};
use crate::lan::dhcp::{Ear, Heard, Port};
use crate::lan::lease::{Answer, Identity, Packet, To};
use crate::spec::Mac;

/// How often it is asked: a packet may get lost.
const TIMES: u32 = 2;

/// Every offer that comes within `wait`, one a server.
pub async fn discover(port: &Arc<Port>, mac: Mac, wait: Duration) -> Result<Vec<Offer>> {
    let identity = Identity { mac, hostname: String::new() };
    let xid = rand::random();
    let mut ear = port.listen(mac);
    let mut offers: Vec<Offer> = Vec::new();
    let begin = Instant::now();
    for time in 0..TIMES {
        let secs = begin.elapsed().as_secs() as u16;
        port.send(&identity, &packet(xid, secs)).await?;
        gather(&mut ear, xid, begin + wait * (time + 1) / TIMES, &mut offers).await;
    }
    Ok(offers)
}

/// How long answers to ARP are waited for: machines of a LAN take milliseconds, some that save power a second.
const ARP: Duration = Duration::from_secs(1);

/// Whoever says to have an address that another one uses: asked as its user asks (RFC 5227), so that the answer comes
/// through a card that takes no other machine's frames.
pub async fn claims(port: &Arc<Port>, users: &[(Ipv4Addr, Mac)]) -> Result<Vec<Claim>> {
    let mut asked = Vec::new();
    for &(address, user) in users {
        let ear = port.overhear(user, address).await?;
        port.ask(user, Ipv4Addr::UNSPECIFIED, address).await?;
        asked.push((address, user, ear));
    }
    let until = Instant::now() + ARP;
    let answers = asked.into_iter().map(|(address, user, mut ear)| async move {
        let mut claims: Vec<Claim> = Vec::new();
        while let Ok(Some(heard)) = timeout_at(until, ear.recv()).await {
            if let Heard::Arp(arp) = heard
                && (arp.sender, arp.mac != user) == (address, true)
                && !claims.iter().any(|claim| claim.by == arp.mac)
            {
                claims.push(Claim { address, user, by: arp.mac });
            }
        }
        claims
    });
    Ok(futures_util::future::join_all(answers).await.concat())
}

fn packet(xid: u32, secs: u16) -> Packet {
    Packet {
        kind: MessageType::Discover,
        xid,
        secs,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        requested: None,
        server: None,
        to: To::Everybody,
    }
}

async fn gather(ear: &mut Ear, xid: u32, until: Instant, offers: &mut Vec<Offer>) {
    loop {
        match timeout_at(until, ear.recv()).await {
            Ok(Some(Heard::Reply(reply))) if reply.xid == xid && reply.answer == Answer::Offer => {
                let Some(grant) = reply.grant else { continue };
                if !offers.iter().any(|offer| offer.server == grant.server) {
                    offers.push(Offer { server: grant.server, address: grant.address, via: grant.via });
                }
            }
            Ok(Some(_)) => {}
            // Nothing will come any more; the time is still the servers'.
            Ok(None) => return sleep_until(until).await,
            Err(_elapsed) => return,
        }
    }
}
