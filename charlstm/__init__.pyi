from .compare.runner import run_grid as run_grid
from .config import Axes as Axes
from .config import DataConfig as DataConfig
from .config import Experiment as Experiment
from .config import Grid as Grid
from .config import ModelConfig as ModelConfig
from .config import OptimizerConfig as OptimizerConfig
from .config import SampleConfig as SampleConfig
from .config import TrainConfig as TrainConfig
from .core.flax_stack import register_cell as register_cell
from .core.network import Model as Model
from .core.step import init_state as init_state
from .core.step import make_train_step as make_train_step
from .data.dataset import read_text as read_text
from .runs.loading import load_run as load_run
from .runs.loading import save_run as save_run
from .runs.models import prepare as prepare
from .support.errors import InputError as InputError
from .training.train import train as train

__version__: str
__all__: list[str]
