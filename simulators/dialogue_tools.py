"""Dialogues with simulated users as tools that a language model calls, for trainers such as TRL's GRPO.

TRL takes a factory of environments with `reset` and documented public methods, which become tools, and reads
`get_reward` at the end. There is no free turn of a user in that form, so the user answers as the result of a tool.
"""

from collections.abc import Callable

from simulators.dialogue_env import FilmDialogueEnv

OVER = "The conversation is over."


class FilmDialogueTools:
    """One user of `FilmDialogueEnv` behind one tool: pass `partial(FilmDialogueTools, make_env)` as the factory.

    Examples with the same `seed` meet the same user under the same luck, so the replies of a group are compared fairly.

    Args:
        make_env: Makes an environment of its own for every rollout; share `world` and `viewers` among them.
    """

    def __init__(self, make_env: Callable[[], FilmDialogueEnv]) -> None:
        self._env = make_env()
        self._reward = 0.0
        self._over = False

    def reset(self, *, seed: int | None = None, **example: object) -> str:
        """Bring the next user.

        Args:
            seed: Chooses the user and the luck; the example's column of that name.
            example: Other columns of the example, which are not read.

        Returns:
            What the user says first, and the card of the film to present.
        """
        self._reward, self._over = 0.0, False
        return self._env.reset(seed=seed)[0]

    def recommend(self, reply: str) -> str:
        """Say something to the user about the film on the card and hear the answer.

        Args:
            reply: The message to the user. It should name the film and say only what the card says.

        Returns:
            The user's answer, with the next card, or a note that the conversation is over.
        """
        if self._over:
            return OVER
        answer, reward, terminated, truncated, _ = self._env.step(reply)
        self._reward += reward
        self._over = terminated or truncated
        return f"{answer}\n{OVER}".strip() if self._over else answer

    def get_reward(self) -> float:
        """The sum of the dialogue's rewards so far; see `FilmDialogueEnv`."""
        return self._reward
