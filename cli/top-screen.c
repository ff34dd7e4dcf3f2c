/* strato top on a terminal: all tables on one screen, drawn anew each second. */
#include <locale.h>
#include <ncurses.h>

#include "cli/top.h"
#include "common/clock.h"
#include "common/macro.h"
#include "common/size.h"

enum { REFRESH_USEC = 1000000 };

struct view {
        unsigned column; /* sorted by */
        bool reverse;
        size_t at, first; /* the chosen row, and the first that is shown */
};

struct screen {
        struct top *top;
        struct view views[TOP_PANELS];
        int active;
        bool help, paused;
};

static const char keys_line[] =
        "q end  Tab table  Left/Right sort  r turn  Up/Down  p pause  h help";
static const char *const help_lines[] = {
        "q, Ctrl-C        end",
        "Tab, Shift-Tab   the next table, the one before; 1 to 5: that one",
        "Left, Right      sort by another column (the underlined one)",
        "r                the other way round",
        "Up, Down         a row; also j, k, Page Up, Page Down, g, G",
        "p, Space         hold still, go on",
        "h, ?             this",
        "",
        "Hosts are shown to those who may see them. A volume's rates are of the",
        "time between two looks; a volume just seen has none yet.",
};

/* Lines for each panel: each its titles and what it has, as far as there is room; what is short is
 * shared, and the active one is served first. */
static void share_lines(const struct screen *s, int lines, int height[TOP_PANELS])
{
        int want[TOP_PANELS], rest = lines;

        for (int i = 0; i < TOP_PANELS; i++) {
                size_t rows = s->top->tables[i].rows;

                want[i] = rows ? 1 + (int)MIN(rows, (size_t)lines) : 0;
                height[i] = rows && rest >= 2 ? 2 : 0;
                rest -= height[i];
        }
        for (int n = 0; n <= TOP_PANELS && rest > 0; n++) {
                int i = n == 0 ? s->active : n - 1, fair = n == 0 ? rest * 2 / 3 : rest;
                int more = MIN(want[i] - height[i], fair);

                if (height[i] > 0 && more > 0) {
                        height[i] += more;
                        rest -= more;
                }
        }
}

static void draw_titles(const struct screen *s, int panel, int y)
{
        const struct table *t = &s->top->tables[panel];
        int x = 0;

        attrset(panel == s->active ? A_REVERSE | A_BOLD : A_REVERSE);
        mvhline(y, 0, ' ', COLS);
        for (unsigned i = 0; i < t->columns && x < COLS; i++) {
                const struct column *c = &t->panel->columns[i];
                bool sorted = i == s->views[panel].column;

                if (c->type != COLUMN_TEXT)
                        x += MAX(c->width - (int)strlen(c->title), 0);
                if (sorted)
                        attron(A_UNDERLINE);
                mvaddnstr(y, x, c->title, MAX(COLS - x, 0));
                if (sorted)
                        attroff(A_UNDERLINE);
                x += c->type == COLUMN_TEXT ? c->width + 1 : (int)strlen(c->title) + 1;
        }
        attrset(A_NORMAL);
}

static void draw_panel(struct screen *s, int panel, int y, int height)
{
        struct table *t = &s->top->tables[panel];
        struct view *v = &s->views[panel];
        size_t lines = (size_t)height - 1;

        v->at = MIN(v->at, t->rows - 1);
        if (v->at < v->first)
                v->first = v->at;
        if (v->at >= v->first + lines)
                v->first = v->at - lines + 1;
        v->first = MIN(v->first, t->rows > lines ? t->rows - lines : 0);
        draw_titles(s, panel, y);
        for (size_t i = 0; i < lines && v->first + i < t->rows; i++) {
                _cleanup_buf_ struct buf line = {};
                bool chosen = panel == s->active && v->first + i == v->at;

                table_row(t, v->first + i, true, &line);
                attrset(chosen ? A_BOLD : A_NORMAL);
                mvaddnstr(y + 1 + (int)i, 0, buf_str(&line), MIN((int)line.len - 1, COLS));
        }
        attrset(A_NORMAL);
}

static void draw_summary(const struct screen *s)
{
        char now[CLOCK_TEXT_MAX], reads[SIZE_TEXT_MAX], writes[SIZE_TEXT_MAX], line[512];
        const struct top *t = s->top;

        clock_format(now, clock_now());
        snprintf(line, sizeof(line),
                 "%.8s  %u of %u guests run  %.0f reads/s %s/s  %.0f writes/s %s/s  %s",
                 s->paused ? "(held)  " : now + 11, t->running, t->guests, t->reads,
                 size_human(reads, (uint64_t)t->read_bytes), t->writes,
                 size_human(writes, (uint64_t)t->write_bytes), t->cloud->mount);
        mvaddnstr(0, 0, line, COLS);
}

static void draw(struct screen *s)
{
        int height[TOP_PANELS], y = 1;

        erase();
        draw_summary(s);
        if (s->help) {
                for (int i = 0; i < (int)ARRAY_SIZE(help_lines) && i + 2 < LINES; i++)
                        mvaddnstr(i + 2, 0, help_lines[i], COLS);
        } else {
                share_lines(s, LINES - 2, height);
                for (int i = 0; i < TOP_PANELS; i++) {
                        if (height[i] > 0)
                                draw_panel(s, i, y, height[i]);
                        y += height[i];
                }
        }
        if (LINES > 2)
                mvaddnstr(LINES - 1, 0, s->help ? "any key goes back" : keys_line, COLS);
        refresh();
}

static void sort_all(struct screen *s)
{
        for (int i = 0; i < TOP_PANELS; i++)
                if (s->top->tables[i].rows)
                        table_sort(&s->top->tables[i], s->views[i].column, s->views[i].reverse);
}

/* The next table that has rows. */
static void choose_panel(struct screen *s, int step)
{
        for (int i = 0; i < TOP_PANELS; i++) {
                s->active = (s->active + step + TOP_PANELS) % TOP_PANELS;
                if (s->top->tables[s->active].rows)
                        return;
        }
}

static void move_row(struct screen *s, long step)
{
        struct view *v = &s->views[s->active];
        size_t rows = s->top->tables[s->active].rows;

        if (step < 0)
                v->at -= MIN((size_t)-step, v->at);
        else if (rows)
                v->at = MIN(v->at + (size_t)step, rows - 1);
}

static void choose_column(struct screen *s, int step)
{
        struct view *v = &s->views[s->active];
        unsigned columns = s->top->tables[s->active].columns;

        if (columns)
                v->column = (v->column + columns + (unsigned)step) % columns;
        v->reverse = false;
        sort_all(s);
}

/* False when it ends. */
static bool take_key(struct screen *s, int key)
{
        long page = MAX(LINES / 2, 1);

        if (s->help && key != 'q') {
                s->help = key == KEY_RESIZE;
                return true;
        }
        if (key >= '1' && key < '1' + TOP_PANELS)
                s->active = key - '1';
        switch (key) {
        case 'q':
                return false;
        case 'h':
        case '?':
                s->help = true;
                break;
        case '\t':
                choose_panel(s, 1);
                break;
        case KEY_BTAB:
                choose_panel(s, -1);
                break;
        case KEY_LEFT:
        case KEY_RIGHT:
                choose_column(s, key == KEY_LEFT ? -1 : 1);
                break;
        case 'r':
                s->views[s->active].reverse = !s->views[s->active].reverse;
                sort_all(s);
                break;
        case 'p':
        case ' ':
                s->paused = !s->paused;
                break;
        case KEY_UP:
        case 'k':
                move_row(s, -1);
                break;
        case KEY_DOWN:
        case 'j':
                move_row(s, 1);
                break;
        case KEY_PPAGE:
        case KEY_NPAGE:
                move_row(s, key == KEY_PPAGE ? -page : page);
                break;
        case KEY_HOME:
        case 'g':
                move_row(s, -INT32_MAX);
                break;
        case KEY_END:
        case 'G':
                move_row(s, INT32_MAX);
                break;
        default: /* KEY_RESIZE: drawn anew as after each key */
                break;
        }
        return true;
}

static int run(struct screen *s, struct err **e)
{
        int64_t next = 0;

        for (;;) {
                int64_t left = next - clock_mono();
                int key;

                if (left <= 0) {
                        int r = s->paused ? 0 : top_look(s->top, e);

                        if (r < 0)
                                return r;
                        if (s->top->tables[s->active].rows == 0)
                                choose_panel(s, 1);
                        sort_all(s);
                        left = REFRESH_USEC;
                        next = clock_mono() + left;
                }
                draw(s);
                timeout((int)(left / 1000) + 1);
                key = getch();
                if (key != ERR && !take_key(s, key))
                        return 0;
        }
}

int top_screen(struct top *top, struct err **e)
{
        struct screen s = {.top = top, .active = TOP_GUESTS};
        SCREEN *terminal;
        int r;

        s.views[TOP_GUESTS].column = 2;  /* those that run are together */
        s.views[TOP_VOLUMES].column = 5; /* who writes most is first */
        setlocale(LC_CTYPE, "");
        terminal = newterm(NULL, stdout, stdin);
        if (!terminal) {
                err_set(e, -ENOTTY, "this terminal (TERM='%s') cannot be drawn on",
                        getenv("TERM") ? getenv("TERM") : "");
                return err_hint(e, -ENOTTY, "strato top --once");
        }
        cbreak();
        noecho();
        keypad(stdscr, TRUE);
        set_escdelay(50);
        curs_set(0);
        r = run(&s, e);
        endwin();
        delscreen(terminal);
        return r;
}
