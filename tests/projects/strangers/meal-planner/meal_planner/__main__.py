from . import MealPlannerCrew

if __name__ == "__main__":
    result = MealPlannerCrew().crew().kickoff(inputs={"diet": "vegetarian", "budget": "40 EUR"})
    print(result.json_dict)
