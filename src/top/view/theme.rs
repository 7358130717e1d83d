//! Colours, where they are wanted.

use ratatui::style::{Color, Modifier, Style};

#[derive(Clone, Copy)]
pub(in crate::top) struct Theme {
    colour: bool,
}

impl Theme {
    /// As <https://no-color.org> has it.
    pub(in crate::top) fn of_environment() -> Self {
        Theme {
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    #[cfg(test)]
    pub(in crate::top) fn plain() -> Self {
        Theme { colour: false }
    }

    #[cfg(test)]
    pub(in crate::top) fn colourful() -> Self {
        Theme { colour: true }
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Labels of figures.
    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Between two parts of the screen.
    pub(super) fn heading(self) -> Style {
        self.strong().add_modifier(Modifier::UNDERLINED)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn bars(self) -> Style {
        self.coloured(Style::new(), Color::Cyan)
    }

    /// The key that the list is sorted by.
    pub(super) fn sorted(self) -> Style {
        self.coloured(self.strong(), Color::Cyan)
    }

    pub(super) fn warning(self) -> Style {
        self.coloured(self.strong(), Color::Yellow)
    }

    /// Alerts.
    pub(super) fn alarm(self) -> Style {
        self.coloured(self.strong().add_modifier(Modifier::REVERSED), Color::Red)
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }
}
