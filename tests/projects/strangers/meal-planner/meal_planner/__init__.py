"""python -m meal_planner"""

from meal_planner.crew import MealPlannerCrew
