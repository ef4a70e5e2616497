//! Clients that take their time, or never come to the point.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use quorumkv_tests::keeperd::Keeperd;

use super::bystander::Bystander;
use super::check;
use crate::raw::{Connection, Hello, Session, body, encode_hello, framed, op, request};

#[test]
fn silent_connections_are_closed_and_slow_ones_are_served() -> Result<()> {
    let mut keeperd = Keeperd::start(&[])?;
    let bystander = Bystander::start(&keeperd.address(), "slow")?;
    let silent = (0..300).map(|_| Connection::open(&keeperd.address())).collect::<Result<Vec<_>>>()?;

    // Byte by byte, the others are not kept waiting and this one gets there.
    let mut slow = Connection::open(&keeperd.address())?;
    for byte in framed(&encode_hello(&Hello::default())) {
        slow.send_bytes(&[byte])?;
        bystander.is_served()?;
    }
    let welcome = slow.receive()?.map(|frame| frame.len());
    ensure!(welcome == Some(37), "{welcome:?}");
    for byte in framed(&request(1, op::EXISTS, &body::watched("/", false))) {
        slow.send_bytes(&[byte])?;
        bystander.is_served()?;
    }
    ensure!(slow.packet()?.is_some_and(|packet| packet.xid == 1 && packet.error == 0));

    for mut connection in silent {
        let said = connection.rest()?;
        ensure!(said.is_empty(), "who says nothing is answered {said:?}");
    }
    bystander.end()?;
    check(&mut keeperd)
}

#[test]
fn who_does_not_read_fills_nothing_but_its_own_buffers() -> Result<()> {
    let mut keeperd = Keeperd::start(&[])?;
    let bystander = Bystander::start(&keeperd.address(), "reading")?;
    let mut session = Session::start(&keeperd.address())?;
    session.create("/large", b"", 0)?;
    session.ok(op::SET_DATA, &body::set("/large", Some(&vec![b'x'; 900_000]), -1))?;
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let mut session = Session::start(&keeperd.address())?;
        session.connection.stream().set_write_timeout(Some(Duration::from_millis(200)))?;
        // As much as the server takes, and a gigabyte of answers at most.
        let asked = framed(&request(1, op::GET_DATA, &body::watched("/large", false)));
        for _ in 0..1000 {
            if session.connection.send_bytes(&asked).is_err() {
                break;
            }
        }
        greedy.push(session);
        bystander.is_served()?;
        check(&mut keeperd)?;
    }
    // Watches are not waited for either: whoever does not take them is closed in the end, and meanwhile costs little.
    drop(greedy);
    bystander.end()?;
    session.close()?;
    check(&mut keeperd)
}

#[test]
fn four_letter_words_are_answered_whatever_follows() -> Result<()> {
    let mut keeperd = Keeperd::start(&[])?;
    for word in
        ["ruok", "srvr", "stat", "mntr", "cons", "envi", "conf", "dump", "wchs", "wchc", "wchp", "isro"]
    {
        let mut stream = TcpStream::connect(keeperd.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(!answer.is_empty() && std::str::from_utf8(&answer).is_ok(), "{word} is answered {answer:?}");
    }
    ensure!(keeperd.ask("nope").is_ok_and(|answer| answer.is_empty()), "an unknown word is answered");
    check(&mut keeperd)
}
