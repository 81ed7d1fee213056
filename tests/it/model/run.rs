//! Takes steps, with the world and with the model, and says where they part.

use proptest::sample::Index;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::queue::{Outcome, Place, Queue, Totals};
use super::steps::{Settings, Step};
use super::world::World;
use crate::support::Answer;

pub(super) type Result<T = ()> = std::result::Result<T, String>;

fn demand(holds: bool, what: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(what()) }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, ought: &T) -> Result {
    demand(is == ought, || {
        format!("{what}: {is:?}, and ought to be {ought:?}")
    })
}

fn expect(answer: &Answer, status: StatusCode) -> Result<Value> {
    demand(answer.status == status, || {
        format!("{answer:?}, not {status}")
    })?;
    Ok(if answer.text.is_empty() {
        Value::Null
    } else {
        answer.json()
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The ids of a list of objects.
fn ids(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|one| text(&one["id"]))
        .collect()
}

/// Takes all steps on a new queue.
pub(super) async fn run(world: &mut World, settings: Settings, steps: &[Step]) -> Result {
    world.furnish(&settings).await;
    let mut run = Run {
        world,
        model: Queue::new(settings),
        bodies: 0,
    };
    for (place, step) in steps.iter().enumerate() {
        let taken = run.take(step).await;
        let counted = match taken {
            Ok(()) => run.counts().await,
            broken => broken,
        };
        counted.map_err(|what| format!("{MODEL} step {place}, {step:?}: {what}"))?;
    }
    run.drain()
        .await
        .map_err(|what| format!("{MODEL} the end: {what}"))
}

/// How it begins when the model says something else than the world.
const MODEL: &str = "the model parts at";

/// Whether a failure is the model's word, and no panic.
pub(super) fn is_of_the_model(failure: &str) -> bool {
    failure.starts_with(MODEL)
}

struct Run<'w> {
    world: &'w mut World,
    model: Queue,
    bodies: u64,
}

impl Run<'_> {
    async fn take(&mut self, step: &Step) -> Result {
        match step {
            Step::Publish { .. } => self.publish(step).await,
            Step::Receive { by, max, lease } => self.receive(*by, *max, *lease).await,
            Step::Ack { by, which } => {
                let leases = self.leases(which);
                let ought = self.model.ack(&leases);
                self.settle(*by, "ack", &leases, json!({}), &ought).await
            }
            Step::Nack {
                by,
                which,
                delay,
                dead_letter,
            } => {
                let leases = self.leases(which);
                let ought = self.model.nack(&leases, *delay, *dead_letter);
                let more = json!({"delay_seconds": delay, "dead_letter": dead_letter});
                self.settle(*by, "nack", &leases, more, &ought).await
            }
            Step::Extend { by, which, lease } => {
                let leases = self.leases(which);
                let ought = self.model.extend(&leases, *lease);
                let more = json!({"lease_seconds": lease});
                self.settle(*by, "extend", &leases, more, &ought).await
            }
            Step::Pass { seconds } => {
                self.model.pass(*seconds);
                self.world.pass(*seconds).await;
                Ok(())
            }
            Step::Purge { by, dead_letters } => {
                let [messages, dead] = self.model.purge(*dead_letters);
                let purge = json!({"dead_letters": dead_letters});
                let answer = self.world.post(*by, "/purge", purge).await;
                let ought = json!({"messages": messages, "dead_letters": dead});
                equal("purged", &expect(&answer, StatusCode::OK)?, &ought)
            }
            Step::Cancel { by, which } => self.delete(*by, *which, "messages").await,
            Step::DeleteDead { by, which } => self.delete(*by, *which, "dead-letters").await,
            Step::Look { by, which } => self.look(*by, *which).await,
            Step::Redrive { by, which } => self.redrive(*by, which).await,
            Step::RedriveAll { by, limit } => self.redrive_all(*by, *limit).await,
            Step::Change(settings) => {
                self.model.settings = *settings;
                self.world.change(settings).await;
                Ok(())
            }
            Step::Kill { gateway } => {
                self.world.kill(*gateway).await;
                Ok(())
            }
            Step::Stop { gateway } => {
                self.world.stop(*gateway).await;
                Ok(())
            }
            Step::Crash => {
                self.world.crash().await;
                Ok(())
            }
        }
    }

    /// Leases that were given, running or not.
    fn leases(&self, which: &[Index]) -> Vec<usize> {
        let given = self.model.leases.len();
        if given == 0 {
            return Vec::new();
        }
        // The later half as often as all: those are the ones that run.
        let recent = given.div_ceil(2);
        let pick = |(place, index): (usize, &Index)| match place % 2 {
            0 => given - 1 - index.index(recent),
            _ => index.index(given),
        };
        which.iter().enumerate().map(pick).collect()
    }

    fn message(&self, which: Index) -> Option<String> {
        let ids: Vec<&String> = self.model.messages.keys().collect();
        (!ids.is_empty()).then(|| (*which.get(&ids)).clone())
    }

    async fn publish(&mut self, step: &Step) -> Result {
        let Step::Publish { by, messages } = step else {
            return Ok(());
        };
        let first = self.bodies;
        self.bodies += messages.len() as u64;
        let described: Vec<Value> = messages
            .iter()
            .zip(first..)
            .map(|(message, body)| {
                let dedup = message.dedup.map(|dedup| format!("d{dedup}"));
                let mut json = json!({"body": body, "priority": message.priority, "dedup_id": dedup,
                    "delay_seconds": message.delay, "ttl_seconds": message.ttl});
                json.as_object_mut()
                    .unwrap()
                    .retain(|_, value| !value.is_null());
                json
            })
            .collect();
        let answer = self
            .world
            .post(*by, "/messages", json!({"messages": described}))
            .await;
        let answer = expect(&answer, StatusCode::CREATED)?;
        let stored = answer["messages"].as_array().ok_or("no messages")?;
        equal("messages", &stored.len(), &messages.len())?;
        for ((message, stored), body) in messages.iter().zip(stored).zip(first..) {
            let is_duplicate = stored["duplicate"] == true;
            self.model
                .publish(message, body, text(&stored["id"]), is_duplicate)?;
        }
        Ok(())
    }

    /// What is shown of a message is what it is.
    fn check_message(&self, shown: &Value, attempts: &str) -> Result {
        let id = text(&shown["id"]);
        let message = self
            .model
            .messages
            .get(id)
            .ok_or_else(|| format!("{id} is unknown"))?;
        let ought = json!([message.body, message.priority, message.attempts]);
        let is = json!([shown["body"], shown["priority"], shown[attempts]]);
        equal(&format!("body, priority, attempts of {id}"), &is, &ought)
    }

    async fn receive(&mut self, by: usize, max: usize, lease: u64) -> Result {
        let request = json!({"max_messages": max, "lease_seconds": lease});
        let answer = self.world.post(by, "/receive", request).await;
        let answer = expect(&answer, StatusCode::OK)?;
        let received = ids(&answer["messages"]);
        self.model.check_order(&received, max)?;
        for (id, message) in received.iter().zip(answer["messages"].as_array().unwrap()) {
            self.model.deliver(id, text(&message["receipt"]), lease);
            self.check_message(message, "attempt")?;
        }
        Ok(())
    }

    async fn settle(
        &self,
        by: usize,
        verb: &str,
        leases: &[usize],
        mut request: Value,
        ought: &[Outcome],
    ) -> Result {
        if leases.is_empty() {
            return Ok(());
        }
        let receipts: Vec<&str> = leases
            .iter()
            .map(|lease| &*self.model.leases[*lease].receipt)
            .collect();
        request["receipts"] = json!(receipts);
        if request["delay_seconds"].is_null() {
            request.as_object_mut().unwrap().remove("delay_seconds");
        }
        let answer = self.world.post(by, &format!("/{verb}"), request).await;
        let is: Vec<std::result::Result<(), String>> = if answer.status == StatusCode::OK {
            let json = answer.json();
            let results = json["results"].as_array().cloned().unwrap_or_default();
            let outcome = |result: &Value| match &result["ok"] {
                Value::Bool(true) => Ok(()),
                _ => Err(text(&result["code"]).to_owned()),
            };
            results.iter().map(outcome).collect()
        } else {
            vec![Err(text(&answer.json()["code"]).to_owned())]
        };
        let ought: Vec<_> = ought
            .iter()
            .map(|outcome| outcome.map_err(str::to_owned))
            .collect();
        equal(&format!("{verb} of leases {leases:?}"), &is, &ought)
    }

    async fn delete(&mut self, by: usize, which: Index, what: &str) -> Result {
        let Some(id) = self.message(which) else {
            return Ok(());
        };
        let was_there = self.model.cancel(&id, what == "dead-letters");
        let path = format!("/{what}/{id}");
        let answer = self
            .world
            .call(by, Method::DELETE, &path, Value::Null)
            .await;
        let ought = if was_there {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::NOT_FOUND
        };
        expect(&answer, ought).map(|_| ())
    }

    /// All lists, and one message.
    async fn look(&self, by: usize, which: Index) -> Result {
        let get = async |path: &str| {
            let answer = self.world.call(by, Method::GET, path, Value::Null).await;
            expect(&answer, StatusCode::OK)
        };
        for state in ["ready", "leased", "delayed", "dead"] {
            let (path, name) = match state {
                "dead" => ("/dead-letters?limit=1000".to_owned(), "dead_letters"),
                _ => (format!("/messages?limit=1000&state={state}"), "messages"),
            };
            let page = get(&path).await?;
            let mut listed = ids(&page[name]);
            for shown in page[name].as_array().into_iter().flatten() {
                self.check_message(shown, "attempts")?;
                if let Place::Dead { reason, .. } = &self.model.messages[text(&shown["id"])].place {
                    equal("reason", &text(&shown["reason"]), reason)?;
                }
            }
            if state == "ready" {
                self.model.check_order(&listed, 1000)?;
            }
            listed.sort_unstable();
            let ought = self
                .model
                .messages
                .iter()
                .filter(|(_, m)| state_of(&m.place) == state);
            let ought: Vec<&str> = ought.map(|(id, _)| id.as_str()).collect();
            equal(state, &listed, &ought)?;
        }
        let Some(id) = self.message(which) else {
            return Ok(());
        };
        let message = &self.model.messages[&id];
        let path = format!("/messages/{id}");
        let answer = self.world.call(by, Method::GET, &path, Value::Null).await;
        if message.place == Place::Gone {
            return expect(&answer, StatusCode::NOT_FOUND).map(|_| ());
        }
        let shown = expect(&answer, StatusCode::OK)?;
        equal("state", &text(&shown["state"]), &state_of(&message.place))?;
        self.check_message(&shown, "attempts")
    }

    async fn redrive(&mut self, by: usize, which: &[Index]) -> Result {
        let mut wanted: Vec<String> = which.iter().filter_map(|one| self.message(*one)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let (dead, missing): (Vec<&str>, Vec<&str>) = wanted
            .iter()
            .map(String::as_str)
            .partition(|id| self.model.is_dead(id));
        let path = "/dead-letters/redrive";
        let answer = self.world.post(by, path, json!({"ids": wanted})).await;
        if dead.is_empty() {
            return expect(&answer, StatusCode::NOT_FOUND).map(|_| ());
        }
        let answer = expect(&answer, StatusCode::OK)?;
        let mut not_found: Vec<&str> = answer["not_found"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        not_found.sort_unstable();
        equal("not found", &not_found, &missing)?;
        let back: Vec<&str> = answer["ids"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        let mut sorted = back.clone();
        sorted.sort_unstable();
        equal("put back", &sorted, &dead)?;
        self.model.redrive(&back)
    }

    async fn redrive_all(&mut self, by: usize, limit: usize) -> Result {
        let request = json!({"filter": {}, "limit": limit});
        let answer = self.world.post(by, "/dead-letters/redrive", request).await;
        let answer = expect(&answer, StatusCode::OK)?;
        let back: Vec<&str> = answer["ids"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        let dead = usize::try_from(self.model.counts()[3]).unwrap();
        equal("put back", &back.len(), &dead.min(limit))?;
        demand(self.model.are_oldest_dead(&back), || {
            format!("{back:?} are not the oldest")
        })?;
        self.model.redrive(&back)
    }

    async fn counts(&self) -> Result {
        let answer = self.world.call(0, Method::GET, "", Value::Null).await;
        let answer = expect(&answer, StatusCode::OK)?;
        let is: Vec<i64> = ["ready", "leased", "delayed", "dead"]
            .iter()
            .map(|name| answer[name].as_i64().unwrap_or(-1))
            .collect();
        equal(
            "ready, leased, delayed, dead",
            &is,
            &self.model.counts().to_vec(),
        )
    }

    /// Everything comes out at last; what was ever done adds up.
    async fn drain(&mut self) -> Result {
        for _ in 0..2 {
            self.take(&Step::Pass { seconds: 8000 }).await?;
            while self.model.counts()[0] > 0 {
                let given = self.model.leases.len();
                self.receive(0, 100, 500).await?;
                let leases: Vec<usize> = (given..self.model.leases.len()).collect();
                let ought = self.model.ack(&leases);
                self.settle(1, "ack", &leases, json!({}), &ought).await?;
            }
        }
        // Nothing more, whatever the counts say.
        self.receive(0, 100, 500).await?;
        self.counts().await?;
        let [ready, leased, delayed, dead] = self.model.counts();
        equal("left", &[ready, leased, delayed], &[0, 0, 0])?;
        let totals = self.world.totals().await;
        let Totals {
            published,
            acked,
            expired,
            removed,
            ..
        } = totals;
        equal("all", &published, &(dead + acked + expired + removed))?;
        equal("totals", &totals, &self.model.totals)
    }
}

fn state_of(place: &Place) -> &'static str {
    match place {
        Place::Ready { .. } => "ready",
        Place::Leased { .. } => "leased",
        Place::Delayed { .. } => "delayed",
        Place::Dead { .. } => "dead",
        Place::Gone => "gone",
    }
}
