//! status, leader, kill and kill-leader.

use expect_test::expect;
use quorumkv_protocol::client::{NodeRole, Request};
use quorumkv_protocol::membership::Member;
use quorumkv_protocol::{Epoch, ErrorCode, NodeId};

use crate::fake::{FakeNode, failed};
use crate::run::{Ran, kvctl_at, nowhere};

/// A leader with id a1… and two followers, a2… and b3….
fn cluster() -> [FakeNode; 3] {
    let ids = [0xa1 << 56, 0xa2 << 56, 0xb3 << 56];
    let nodes = ids.map(|id| FakeNode::scripted(id, |_| None));
    let members: Vec<_> = ids
        .iter()
        .zip(&nodes)
        .map(|(id, node)| Member { node: NodeId::new(*id), address: node.address.clone() })
        .collect();
    for (number, node) in nodes.iter().enumerate() {
        node.set_status(|status| {
            status.epoch = Epoch::new(3, members[0].node);
            status.leader = Some(members[0].node);
            status.leader_address = Some(members[0].address.clone());
            status.members.clone_from(&members);
            status.lag = number as u64;
            if number > 0 {
                status.role = NodeRole::Follower;
            }
        });
    }
    nodes
}

fn run(nodes: &[FakeNode], arguments: &[&str]) -> Ran {
    kvctl_at(&nodes.iter().collect::<Vec<_>>(), arguments)
}

/// The output with fixed names of the same length in place of addresses, whose ports differ from run to run.
fn anonymous(text: &str, nodes: &[FakeNode]) -> String {
    nodes.iter().zip(["<node1>", "<node2>", "<node3>"]).fold(text.to_owned(), |text, (node, name)| {
        text.replace(&node.address, &format!("{name:<width$}", width = node.address.len()))
    })
}

#[test]
fn a_healthy_cluster_is_a_table_and_0() {
    let nodes = cluster();
    let ran = run(&nodes, &["status", "-o", "table"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // Addresses have from 11 to 15 characters, so columns may be wider or narrower: compare words.
    let text = anonymous(ran.text(), &nodes);
    let words: Vec<_> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    expect![[r#"
        NODE ENDPOINT ROLE EPOCH LEADER COMMITTED APPLIED LAG SYNC P99 ZOOKEEPER VERSION
        a100000000000000 <node1> leader 3 itself 41 40 0 1.23 ms connected 0.1.0
        a200000000000000 <node2> follower 3 <node1> 41 40 1 1.23 ms connected 0.1.0
        b300000000000000 <node3> follower 3 <node1> 41 40 2 1.23 ms connected 0.1.0"#]]
    .assert_eq(&words.join("\n"));
}

#[test]
fn status_in_json_has_everything() {
    let [leader, ..] = cluster();
    let nodes = [leader];
    let ran = run(&nodes, &["status", "-o", "json"]);
    let mut json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    json["nodes"][0]["members"].as_array_mut().unwrap().truncate(1);
    let pretty = serde_json::to_string_pretty(&json).unwrap().replace(&nodes[0].address, "<node1>");
    expect![[r#"
        {
          "healthy": true,
          "leader": {
            "endpoint": "<node1>",
            "epoch": "3@a100000000000000",
            "node": "a100000000000000"
          },
          "nodes": [
            {
              "address": "<node1>",
              "applied": "40",
              "cluster": "0000000000000007",
              "committed": "41",
              "damage": null,
              "endpoint": "<node1>",
              "epoch": "3@a100000000000000",
              "gave_up": null,
              "lag": "0",
              "last": "41",
              "leader": "a100000000000000",
              "leader_address": "<node1>",
              "members": [
                {
                  "address": "<node1>",
                  "node": "a100000000000000"
                }
              ],
              "node": "a100000000000000",
              "reachable": true,
              "ready": true,
              "remarks": "",
              "role": "leader",
              "sync_p99_us": "1234",
              "uptime_s": "60",
              "version": "0.1.0",
              "zookeeper": "connected"
            }
          ],
          "problems": []
        }"#]]
    .assert_eq(&pretty);
}

#[test]
fn what_is_unhealthy_is_named_and_ends_with_10() {
    let nodes = cluster();
    let nowhere = nowhere();
    let mut endpoints: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    endpoints.push(&nowhere);
    let ran = run(&nodes, &["status", "-e", &endpoints.join(",")]);
    assert_eq!(ran.code, 10);
    assert!(ran.stderr.contains(&nowhere), "{}", ran.stderr);
    let row = ran.text().lines().last().unwrap();
    assert!(row.contains("unreachable") && row.contains(&nowhere), "{row}");

    nodes[2].set_status(|status| {
        status.ready = false;
        status.remarks = "restoring from a snapshot".to_owned();
    });
    let ran = run(&nodes, &["status"]);
    assert_eq!(ran.code, 10);
    assert!(ran.stderr.contains("restoring from a snapshot"), "{}", ran.stderr);
    nodes[2].set_status(|status| {
        status.ready = true;
        status.remarks.clear();
    });
    assert_eq!(run(&nodes, &["status"]).code, 0);

    for node in &nodes {
        node.set_status(|status| {
            status.role = NodeRole::Follower;
            (status.leader, status.leader_address) = (None, None);
        });
    }
    for command in ["status", "leader", "kill-leader"] {
        let ran = run(&nodes, &[command]);
        assert_eq!(ran.code, 10, "{command}");
        assert!(ran.stderr.contains("no node leads"), "{command}: {}", ran.stderr);
    }
    let json: serde_json::Value =
        serde_json::from_slice(&run(&nodes, &["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["healthy"], false);
}

#[test]
fn a_leader_that_was_replaced_is_not_taken_for_one() {
    let nodes = cluster();
    nodes[1].set_status(|status| {
        status.role = NodeRole::Leader;
        status.epoch = Epoch::new(4, status.node);
        (status.leader, status.leader_address) = (Some(status.node), Some(status.address.clone()));
    });
    assert_eq!(run(&nodes, &["leader"]).text().trim_end(), nodes[1].address);
    let ran = run(&nodes, &["status"]);
    assert_eq!(ran.code, 10);
    assert!(ran.stderr.contains("different leaders"), "{}", ran.stderr);
}

#[test]
fn the_leader_is_named_even_if_only_a_follower_is_asked() {
    let nodes = cluster();
    for arguments in [&["leader"][..], &["leader", "-e", &nodes[2].address]] {
        assert_eq!(run(&nodes, arguments).text(), format!("{}\n", nodes[0].address));
    }
    let all = [run(&nodes, &["leader", "-o", "table"]), run(&nodes, &["leader", "-o", "json"])];
    let text = all.map(|ran| anonymous(ran.text(), &nodes)).concat();
    assert!(text.starts_with("a100000000000000 at <node1>"), "{text}");
    assert!(text.contains(r#""epoch":"3@a100000000000000""#), "{text}");
}

#[test]
fn kill_leader_stops_the_leader_and_says_which() {
    let nodes = cluster();
    let ran = run(&nodes, &["kill-leader", "-o", "table", "-e", &nodes[1].address]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.text(), format!("a100000000000000 at {} is stopping\n", nodes[0].address));
    assert_eq!(nodes.each_ref().map(FakeNode::was_stopped), [true, false, false]);
}

#[test]
fn kill_takes_an_endpoint_or_the_beginning_of_an_id() {
    let nodes = cluster();
    let ran = run(&nodes, &["kill", &nodes[1].address]);
    assert_eq!((ran.code, ran.text().trim_end()), (0, nodes[1].address.as_str()));
    assert_eq!(nodes.each_ref().map(FakeNode::was_stopped), [false, true, false]);

    let ran = run(&nodes, &["kill", "a"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("2 nodes"), "{}", ran.stderr);
    assert_eq!(run(&nodes, &["kill", "c"]).code, 3);
    assert_eq!(nodes.each_ref().map(FakeNode::was_stopped), [false, true, false]);

    // The third is no endpoint here, but the first names it as a member.
    let ran = run(&nodes[..1], &["kill", "B3", "-o", "json"]);
    assert_eq!(
        ran.text(),
        format!("{{\"stopped\":\"{}\",\"node\":\"b300000000000000\"}}\n", nodes[2].address)
    );
    assert!(nodes[2].was_stopped());
}

#[test]
fn a_node_that_may_not_be_stopped_from_here_ends_with_8() {
    let node = FakeNode::scripted(1, |request| match request {
        Request::Stop { .. } => Some(failed(ErrorCode::NotPermitted, "only over loopback")),
        _ => None,
    });
    for arguments in [&["kill-leader"][..], &["kill", &node.address]] {
        let ran = kvctl_at(&[&node], arguments);
        assert_eq!(ran.code, 8, "{}", ran.stderr);
        assert!(ran.stderr.contains("only over loopback"), "{}", ran.stderr);
    }
}
