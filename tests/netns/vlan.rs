//! A network on a VLAN of the parent.

use serde_json::{Value, json};

use crate::dockerd::Dockerd;
use crate::server::Server;
use crate::world::{self, LAN, MAC, NETWORK, PARENT, World, inside, sh, try_sh, until};

const SUB: &str = "eth7.120";

async fn create(dockerd: &Dockerd, id: &str) -> Result<Value, String> {
    let generic = json!({"com.docker.network.generic": {"parent": PARENT, "vlan": "120"}});
    dockerd.call("CreateNetwork", json!({"NetworkID": id, "Options": generic})).await
}

/// Whether this kernel can.
fn has_vlans(world: &World) -> bool {
    let trial = world.new_namespace("trial");
    try_sh(&format!(
        "nsenter --net={0} ip link add t7 type veth peer name t8 && nsenter --net={0} ip link add link t7 name t7.5 type vlan id 5",
        trial.display()
    ))
    .is_ok()
}

/// The far end of the VLAN: the server listens there, and nowhere else.
fn far_end(world: &World) -> String {
    let (lan, far) = (world.path("lan"), format!("{LAN}.120"));
    inside(&lan, &format!("ip address flush dev {LAN}"));
    inside(&lan, &format!("ip link add link {LAN} name {far} type vlan id 120"));
    inside(&lan, &format!("ip address add 10.77.0.1/24 dev {far}"));
    inside(&lan, &format!("ip link set {far} up"));
    far
}

#[test]
fn a_kernel_without_vlans_is_told_from_a_mistake() {
    world::run(|world| async move {
        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        if has_vlans(&world) {
            create(&dockerd, NETWORK).await.unwrap();
            return;
        }
        let error = create(&dockerd, NETWORK).await.unwrap_err();
        assert!(error.contains("kernel has no VLANs") && error.contains("modprobe 8021q"), "{error}");
        assert!(try_sh(&format!("ip link show {SUB}")).is_err());
    });
}

#[test]
#[ignore = "needs a kernel with 8021q, which that of the test machines lacks: cargo nextest run --run-ignored only vlan"]
fn the_sub_interface_comes_and_goes_with_its_networks() {
    world::run(|world| async move {
        let far = far_end(&world);
        let _server = Server::at(&world, ("lan", &far), "10.77.0.50,10.77.0.99,1h", &[]);
        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        create(&dockerd, NETWORK).await.unwrap();
        create(&dockerd, "second").await.unwrap();
        assert!(sh(&format!("ip -d link show {SUB}")).contains("vlan protocol 802.1Q id 120"));
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        container.sh("ping -c1 -W5 10.77.0.1");
        dockerd.stop(container).await;
        // As after a reboot: the next daemon makes it again.
        drop((lan, dockerd));
        sh(&format!("ip link delete {SUB}"));
        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        let container = dockerd.run("e2", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        container.sh("ping -c1 -W5 10.77.0.1");
        dockerd.stop(container).await;
        dockerd.call("DeleteNetwork", json!({"NetworkID": NETWORK})).await.unwrap();
        assert!(try_sh(&format!("ip link show {SUB}")).is_ok(), "another network uses it");
        dockerd.call("DeleteNetwork", json!({"NetworkID": "second"})).await.unwrap();
        assert!(try_sh(&format!("ip link show {SUB}")).is_err());

        // One that the host has is used, and stays.
        sh(&format!("ip link add link {PARENT} name {SUB} type vlan id 120"));
        create(&dockerd, "third").await.unwrap();
        dockerd.call("DeleteNetwork", json!({"NetworkID": "third"})).await.unwrap();
        assert!(try_sh(&format!("ip link show {SUB}")).is_ok());
        sh(&format!("ip link delete {SUB}; ip link add link {PARENT} name {SUB} type vlan id 121"));
        assert!(create(&dockerd, "fourth").await.unwrap_err().contains("not VLAN 120 of eth7"));
    });
}
