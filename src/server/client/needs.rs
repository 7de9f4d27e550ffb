//! The exchange's steps: what it needs is given at once, or waited for; then its response goes out.

use crate::base::level::Level;
use crate::http::change::ChangeFailure;
use crate::http::flow::{Answer, Need, Step};
use crate::http::modules::auth_basic::PasswordAnswer;
use crate::message::Status;
use crate::server::files::{Completion, MAX_DIRECTORY_ENTRIES, Opened};
use crate::server::pool::JobId;
use crate::server::worker::resources::Resources;

use super::request_body::BodyReader;
use super::{Active, Client, ClientKey, Fate, State, Waiting};

impl Client {
    /// Moves the exchange on with an answer.
    pub(super) fn drive(
        &mut self,
        mut active: Box<Active>,
        answer: Option<Answer>,
        key: ClientKey,
        res: &mut Resources,
    ) -> Fate {
        let step = active.exchange.step(&mut res.env, answer);
        self.follow(active, step, key, res)
    }

    /// Does what the exchange's steps ask for until it waits or its response is on its way.
    pub(super) fn follow(
        &mut self,
        mut active: Box<Active>,
        mut step: Step,
        key: ClientKey,
        res: &mut Resources,
    ) -> Fate {
        loop {
            if !active.exchange.background.is_empty() {
                self.make_background(&mut active, res);
            }
            match step {
                Step::Respond => {
                    active.drop_idle_relay(res);
                    let switches = self.respond(&mut active, res);
                    if switches {
                        active.begin_tunnel(self.wire.take_held());
                        self.state = State::Active(active);
                        return self.pump_tunnel(key, res);
                    }
                    self.state = State::Active(active);
                    return self.pump(key, res);
                }
                Step::Close => {
                    if let Some(relay) = active.relay.take() {
                        relay.abandon(&mut active.exchange, res);
                    }
                    active.exchange.outcome.complete = false;
                    active.exchange.log_access(&mut res.env);
                    res.give_back(active);
                    self.state = State::Head;
                    return Fate::Close;
                }
                Step::Need(need) => match self.satisfy(&mut active, need, key, res) {
                    Some(answer) => step = active.exchange.step(&mut res.env, Some(answer)),
                    None => {
                        self.state = State::Active(active);
                        return Fate::Keep;
                    }
                },
            }
        }
    }

    /// Satisfies a need at once, or arranges for its answer and says `None`.
    fn satisfy(
        &mut self,
        active: &mut Active,
        need: Need,
        key: ClientKey,
        res: &mut Resources,
    ) -> Option<Answer> {
        match need {
            Need::File(want) => {
                let site = active.exchange.site.clone();
                let options = &site.location(active.exchange.location).file_options;
                match res.files.open(&active.exchange.file_request(want, options), res.env.now.into()) {
                    Opened::Ready(answer) => Some(Answer::File(answer)),
                    Opened::Pending(job) => {
                        self.await_job(active, job, key, res);
                        None
                    }
                }
            }
            Need::Read => {
                let Some(range) = active.exchange.reading.take() else { return Some(Answer::Read(None)) };
                match res.read_some(&range) {
                    Some(bytes) => Some(Answer::Read(Some(bytes))),
                    None => match res.files.read(&range.handle, range.offset, range.length as usize) {
                        Ok(job) => {
                            self.await_job(active, job, key, res);
                            None
                        }
                        Err(_) => Some(Answer::Read(None)),
                    },
                }
            }
            Need::Password => self.ask_password(active, key, res).map(Answer::Password),
            Need::Change => self.ask_change(active, key, res).map(|failure| Answer::Change(Err(failure))),
            Need::Delay(ms) => {
                active.waiting = Waiting::Delay;
                self.set_deadline(res.env.now.monotonic_ms.saturating_add(ms));
                None
            }
            Need::Directory => {
                let exchange = &active.exchange;
                match res.files.read_directory(&exchange.path, exchange.root_length, MAX_DIRECTORY_ENTRIES) {
                    Ok(job) => {
                        self.await_job(active, job, key, res);
                        None
                    }
                    Err(_) => Some(Answer::Directory(Err(crate::http::file::FileFailure::busy()))),
                }
            }
            Need::Subrequest => self.make_subrequest(active, key, res),
            Need::Upstream => self.begin_passing(active, key, res),
            Need::RequestBody => {
                if !self.wire.body_pending() {
                    return Some(Answer::RequestBody(Ok(())));
                }
                if self.wire.withholds_body() {
                    self.wire.interim(Status::CONTINUE, &mut res.out);
                }
                active.body =
                    Some(BodyReader::new(active.exchange.body_reading(), active.exchange.head.framing));
                active.waiting = Waiting::Body;
                self.begin_pace();
                self.await_body(&active.exchange.scope_settings().core, res.env.now.monotonic_ms);
                None
            }
        }
    }

    /// Answers about a password that was right a moment ago; others are for the pool.
    fn ask_password(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Option<PasswordAnswer> {
        let Some(question) = active.exchange.notes.password.as_deref() else {
            debug_assert!(false, "who needs an answer has a question");
            return Some(PasswordAnswer::Busy);
        };
        if res.passwords.is_known(question, res.env.now.monotonic_ms) {
            return Some(PasswordAnswer::Right);
        }
        let place = res.passwords.place();
        match place.map(|place| res.files.check_password(question.clone(), place)) {
            Some(Ok(job)) => {
                self.await_job(active, job, key, res);
                None
            }
            _ => Some(PasswordAnswer::Busy),
        }
    }

    /// Has the pool make the exchange's change; what is wrong if it can't.
    fn ask_change(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Option<ChangeFailure> {
        let Some(change) = active.exchange.notes.dav.take_change() else {
            debug_assert!(false, "who needs a change has one");
            return Some(ChangeFailure::busy());
        };
        match res.files.change(change, active.body_file.take()) {
            Ok(job) => {
                self.await_job(active, job, key, res);
                None
            }
            Err(_) => Some(ChangeFailure::busy()),
        }
    }

    fn await_job(&mut self, active: &mut Active, job: JobId, key: ClientKey, res: &mut Resources) {
        res.jobs.insert(job, key);
        active.waiting = Waiting::Answer(job);
    }

    /// The time that the request had to wait is over.
    pub fn end_delay(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let Some(active) = self.take_state() else { return Fate::Keep };
        match self.drive(active, Some(Answer::Delay), key, res) {
            // Whatever came in meanwhile waits behind this request.
            Fate::Keep => self.read_on(key, res),
            Fate::Close => Fate::Close,
        }
    }

    /// Whether the client has gone while its request waits for its time: as in nginx nobody is served then.
    pub(super) fn left_while_delayed(&mut self, res: &mut Resources) -> bool {
        let State::Active(active) = &mut self.state else { return false };
        let why = match active.waiting {
            Waiting::Delay => "its request was delayed",
            Waiting::Subrequest => "a subrequest was served",
            _ => return false,
        };
        let message = format_args!("client prematurely closed connection while {why}");
        active.exchange.log_in_scope(&mut res.env, Level::Info, message);
        active.exchange.response.status = Status(499);
        true
    }

    /// Takes what the pool has yielded for this connection.
    pub fn on_completion(
        &mut self,
        key: ClientKey,
        job: JobId,
        completion: Completion,
        res: &mut Resources,
    ) -> Fate {
        let fate = self.take_completion(key, job, completion, res);
        if fate == Fate::Close {
            return fate;
        }
        // Whatever came in meanwhile waits behind this request.
        self.read_on(key, res)
    }

    fn take_completion(
        &mut self,
        key: ClientKey,
        job: JobId,
        completion: Completion,
        res: &mut Resources,
    ) -> Fate {
        let State::Active(active) = &mut self.state else { return Fate::Keep };
        if active.waiting != Waiting::Answer(job) {
            return match (active.waiting, completion) {
                (Waiting::Output, completion) if !active.output.is_upstream() => {
                    self.on_output_completion(key, job, completion, res)
                }
                (Waiting::Upstream | Waiting::Output, completion) => {
                    self.on_relay_completion(key, job, completion, res)
                }
                (Waiting::Body, completion) => self.on_body_completion(key, completion, res),
                _ => Fate::Keep,
            };
        }
        let answer = match completion {
            Completion::Opened(answer) => Answer::File(answer),
            Completion::Listed(listing) => Answer::Directory(listing),
            Completion::Changed(result) => Answer::Change(result),
            Completion::Read(read) => Answer::Read(read.ok().map(|bytes| bytes.to_vec())),
            Completion::Password(checked) => {
                if let Some(question) = active.exchange.notes.password.as_deref() {
                    res.passwords.remember(question, &checked, res.env.now.monotonic_ms);
                }
                Answer::Password(checked.answer)
            }
            _ => return Fate::Keep,
        };
        match self.take_state() {
            Some(active) => self.drive(active, Some(answer), key, res),
            None => Fate::Keep,
        }
    }

    /// Takes the active request out of the state, to move it on.
    pub fn take_state(&mut self) -> Option<Box<Active>> {
        match std::mem::replace(&mut self.state, State::Head) {
            State::Active(active) => Some(active),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Moves the exchange on with the answer about its request body.
    pub fn resume_with_body(
        &mut self,
        result: Result<(), Status>,
        key: ClientKey,
        res: &mut Resources,
    ) -> Fate {
        match self.take_state() {
            Some(mut active) => {
                active.body = None;
                self.drive(active, Some(Answer::RequestBody(result)), key, res)
            }
            None => Fate::Keep,
        }
    }
}
