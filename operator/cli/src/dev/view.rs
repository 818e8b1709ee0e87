//! The live view in a terminal.

use std::time::Duration;

use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, TableState, Wrap};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zentra_core::clock::Timestamp;
use zentra_core::event::DeliveryKey;

use super::Intro;
use super::feed::News;
use super::rows::{Row, Rows, Standing, Subject};

/// How long the thread that reads keys waits for one before it looks whether it should end.
const KEYS: Duration = Duration::from_millis(100);
/// Number of keys that can wait.
const TYPED: usize = 64;
/// Lines that the details move at a time.
const PAGE: u16 = 10;
const HELP: &str = "↑↓ select   Enter details   PgUp PgDn scroll   r replay   q quit";

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Replay(DeliveryKey),
}

/// The state of the view.
pub(super) struct View {
    rows: Rows,
    intro: Intro,
    /// The selected row; `None` follows the newest one.
    selected: Option<Subject>,
    details: bool,
    scroll: u16,
    note: String,
    colors: bool,
}

impl View {
    pub(super) fn new(intro: Intro, colors: bool) -> Self {
        Self {
            rows: Rows::default(),
            intro,
            selected: None,
            details: false,
            scroll: 0,
            note: String::new(),
            colors,
        }
    }

    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Note(note) => self.note = note.lines().collect::<Vec<_>>().join(" "),
            other => self.rows.take(other),
        }
    }

    /// Obeys a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Action {
        let rows = self.rows.rows();
        let at = self.position(&rows);
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Action::Quit,
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.select(&rows, at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(&rows, at + 1),
            KeyCode::Home | KeyCode::Char('g') => self.selected = None,
            KeyCode::End | KeyCode::Char('G') => self.select(&rows, rows.len()),
            KeyCode::Enter => self.details = !self.details,
            KeyCode::Esc => self.details = false,
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(PAGE),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::Char('r') => match rows.get(at).map(|row| &row.subject) {
                Some(Subject::Delivery(key)) => return Action::Replay(key.clone()),
                Some(Subject::Refused(_)) => {
                    self.note =
                        "A refused callback is not replayed: correct the secret, and send it \
                                 again"
                            .into();
                }
                _ => self.note = "Nothing to replay".into(),
            },
            _ => {}
        }
        Action::None
    }

    fn position(&self, rows: &[Row]) -> usize {
        let is = |row: &Row| Some(&row.subject) == self.selected.as_ref();
        rows.iter().position(is).unwrap_or(0)
    }

    fn select(&mut self, rows: &[Row], at: usize) {
        let at = at.min(rows.len().saturating_sub(1));
        self.selected = rows.get(at).filter(|_| at > 0).map(|row| row.subject.clone());
        self.scroll = 0;
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let rows = self.rows.rows();
        let at = self.position(&rows);
        let selected = rows.get(at).filter(|_| self.details);
        // The link to the console is longer than most terminals are wide.
        let width = usize::from(frame.area().width).max(1);
        let rows_of = |line: &String| line.chars().count().div_ceil(width).max(1);
        let intro = self.intro.lines.iter().map(rows_of).sum::<usize>();
        let intro = u16::try_from(intro).unwrap_or(u16::MAX);
        let [top, list, details, bottom] = Layout::vertical([
            Constraint::Length(intro + 1),
            Constraint::Fill(1),
            Constraint::Fill(if selected.is_some() { 2 } else { 0 }),
            Constraint::Length(2),
        ])
        .areas(frame.area());
        frame.render_widget(
            Paragraph::new(
                self.intro.lines.iter().map(|line| Line::raw(line.as_str())).collect::<Vec<_>>(),
            )
            .wrap(Wrap { trim: false }),
            top,
        );
        match rows.is_empty() {
            true => frame.render_widget(Paragraph::new("No callback has arrived yet."), list),
            false => {
                let mut state = TableState::default().with_selected(at);
                frame.render_stateful_widget(self.table(&rows), list, &mut state);
            }
        }
        if let Some(row) = selected {
            let lines = self.rows.details(&row.subject, &self.intro.options);
            let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
            let block = Block::default().borders(Borders::TOP).title(row.event.as_str());
            frame.render_widget(
                Paragraph::new(lines)
                    .wrap(Wrap { trim: false })
                    .scroll((self.scroll, 0))
                    .block(block),
                details,
            );
        }
        let lines = vec![Line::raw(self.note.as_str()), Line::styled(HELP, self.dim())];
        frame.render_widget(Paragraph::new(lines), bottom);
    }

    fn table<'r>(&self, rows: &'r [Row]) -> Table<'r> {
        let names = ["TIME", "SOURCE", "TYPE", "EVENT", "TO", "STATE", "ATTEMPTS", "ANSWER"];
        let widths = [
            Constraint::Length(8),
            Constraint::Length(14),
            Constraint::Fill(2),
            Constraint::Fill(2),
            Constraint::Length(10),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Fill(2),
        ];
        let cells = rows.iter().map(|row| {
            let attempts = match row.attempts {
                0 => String::new(),
                count => count.to_string(),
            };
            TableRow::new([
                Cell::new(time(row.at)),
                Cell::new(row.source.as_str()),
                Cell::new(row.kind.as_str()),
                Cell::new(row.event.as_str()),
                Cell::new(row.destination.as_str()),
                Cell::new(row.state).style(self.color(row.standing)),
                Cell::new(attempts),
                Cell::new(row.answer.as_str()),
            ])
        });
        Table::new(cells, widths)
            .header(TableRow::new(names).style(self.dim()))
            .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED))
    }

    fn color(&self, standing: Standing) -> Style {
        let style = Style::default();
        match (self.colors, standing) {
            (false, Standing::Bad) => style.add_modifier(Modifier::BOLD),
            (false, _) => style,
            (true, Standing::Good) => style.fg(Color::Green),
            (true, Standing::Open) => style.fg(Color::Yellow),
            (true, Standing::Bad) => style.fg(Color::Red),
        }
    }

    fn dim(&self) -> Style {
        Style::default().add_modifier(Modifier::DIM)
    }
}

/// Hours, minutes and seconds, UTC.
fn time(at: Timestamp) -> String {
    let secs = at.secs() % (24 * 3600);
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

/// Draws until the user quits, or `stop`. `replay` is called for each replay that is asked for.
///
/// # Errors
/// Those of the terminal.
pub(super) async fn run(
    terminal: &mut DefaultTerminal,
    mut view: View,
    news: &mut mpsc::Receiver<News>,
    stop: &CancellationToken,
    replay: impl Fn(DeliveryKey),
) -> std::io::Result<()> {
    let ended = stop.child_token();
    let _end = ended.clone().drop_guard();
    let mut keys = keys(ended);
    loop {
        terminal.draw(|frame| view.draw(frame))?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(new) = news.recv() => {
                view.take(new);
                // One drawing for all that is there.
                while let Ok(new) = news.try_recv() {
                    view.take(new);
                }
            }
            key = keys.recv() => match key {
                Some(Some(key)) => match view.press(key) {
                    Action::None => {}
                    Action::Quit => return Ok(()),
                    Action::Replay(key) => replay(key),
                },
                // The size has changed.
                Some(None) => {}
                None => return Ok(()),
            },
        }
    }
}

/// Keys, and `None` for what only asks for a new drawing. A thread reads them, since the terminal can
/// only be waited for. It ends with the terminal.
fn keys(ended: CancellationToken) -> mpsc::Receiver<Option<KeyEvent>> {
    let (send, receive) = mpsc::channel(TYPED);
    std::thread::spawn(move || {
        while !ended.is_cancelled() {
            let read = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(_) => return,
            };
            let sent = match read {
                Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    send.blocking_send(Some(key))
                }
                Ok(event::Event::Resize(..)) => send.blocking_send(None),
                Ok(_) => Ok(()),
                Err(_) => return,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Color;
    use zentra_core::refused::RefusedRecord;

    use super::*;

    fn view(colors: bool) -> View {
        let lines = vec!["callbacks  http://127.0.0.1:8080/in/stripe".into()];
        View::new(Intro { lines, options: " --config c".into() }, colors)
    }

    fn refused(id: &str, at: u64, header: &str) -> News {
        let record = RefusedRecord {
            v: 1,
            id: id.into(),
            source: "stripe".into(),
            reason: "signature_mismatch".into(),
            received_at: Timestamp::from_secs(at),
            peer: None,
            method: None,
            query: None,
            headers: vec![("x-other".into(), header.into())],
        };
        News::Refused(Box::new(record), Bytes::from_static(b"{\"id\":\"evt_1\"}"))
    }

    fn press(view: &mut View, code: KeyCode) -> Action {
        view.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn drawn(view: &View) -> (String, Vec<Color>) {
        let mut terminal = Terminal::new(TestBackend::new(120, 30)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let text = buffer.content.chunks(120);
        let text = text.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
        let colors = buffer.content.iter().map(|cell| cell.fg).collect();
        (text.collect::<Vec<_>>().join("\n"), colors)
    }

    #[test]
    fn nothing_yet_is_said_and_each_way_to_quit_quits() {
        let mut view = view(true);
        assert!(drawn(&view).0.contains("No callback has arrived yet."));
        assert_eq!(press(&mut view, KeyCode::Char('r')), Action::None);
        assert_eq!(press(&mut view, KeyCode::Char('q')), Action::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(control_c), Action::Quit);
    }

    #[test]
    fn details_show_a_refusal_without_control_characters() {
        let mut view = view(true);
        view.take(refused("id-1", 5, "a\u{1b}[2Jb\u{202e}c"));
        press(&mut view, KeyCode::Enter);
        let (text, _) = drawn(&view);
        for part in
            ["signature_mismatch", "x-other: a", "evt_1", "zentra refused show id-1 --config c"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert_eq!(press(&mut view, KeyCode::Char('r')), Action::None);
        assert!(drawn(&view).0.contains("correct the secret"));
    }

    #[test]
    fn the_selection_stays_at_its_row_while_new_ones_arrive() {
        let mut view = view(true);
        for (id, at) in [("id-1", 1), ("id-2", 2)] {
            view.take(refused(id, at, ""));
        }
        press(&mut view, KeyCode::Down);
        press(&mut view, KeyCode::Enter);
        view.take(refused("id-3", 3, ""));
        assert!(drawn(&view).0.contains("refused show id-1"));
        press(&mut view, KeyCode::Char('g'));
        assert!(drawn(&view).0.contains("refused show id-3"));
        for _ in 0..9 {
            press(&mut view, KeyCode::Down);
        }
        assert!(drawn(&view).0.contains("refused show id-1"));
        for _ in 0..9 {
            press(&mut view, KeyCode::Up);
        }
        assert!(drawn(&view).0.contains("refused show id-3"));
    }

    #[test]
    fn without_colors_nothing_is_colored() {
        for colors in [true, false] {
            let mut view = view(colors);
            view.take(refused("id-1", 1, ""));
            let is_colored = drawn(&view).1.iter().any(|color| *color != Color::Reset);
            assert_eq!(is_colored, colors);
        }
    }

    #[test]
    fn no_more_rows_are_kept_than_are_shown() {
        let mut rows = Rows::default();
        for at in 0..2 * crate::dev::feed::SHOWN as u64 {
            rows.take(refused(&format!("id-{at}"), at, ""));
        }
        let all = rows.rows();
        assert_eq!(all.len(), crate::dev::feed::SHOWN);
        assert_eq!(all[0].event, "id-399");
    }
}
